// The kernel for one instruction set: compiled once for each, with the flags that build.py gives.
#include "indrnn.h"

#define CONCAT(a, b) a##b
#define NAME(isa) CONCAT(indrnn_, isa)
extern const Isa NAME(INDRNN_ISA);
const Isa NAME(INDRNN_ISA) = {{INDRNN_ISA::run<float>, INDRNN_ISA::run<double>}};

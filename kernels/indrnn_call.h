// What one run of the recurrence is given, and the entry of each instruction set. Included by files compiled with different flags.
#pragma once

#include <stddef.h>
#include <stdint.h>

// All arrays are contiguous. kernels/native.py repeats this layout.
struct Call {
    int64_t T, B, H;
    int32_t dtype;       // 0 float32, 1 float64
    int32_t activation;  // relu, leaky_relu, tanh, sigmoid, identity, piecewise_linear; CLIP where u varies, and only there
    int32_t reverse;     // 1: from each row's last step to its first
    int32_t isa;         // 0 the best of this machine, 1 plain, 2 AVX2, 3 AVX-512
    int32_t gradient;    // 1: the gradient, from y and the arrays at the end; empty arrays may be null, so dx cannot tell
    int32_t varying;     // 1: u and du are [T, B, H], as DiagonalRecurrence has them
    double alpha;        // slope of leaky_relu below 0; the gradient asks for 0 or more
    double lo, hi;       // of CLIP: least and most of the state, NaN where there is none
    const void *x, *u, *h0;  // [T, B, H], [H], [B, H] or null for zeros
    const int64_t* lens;     // [B] or null for T; below 0 counts as 0, above T as T
    void *y, *y_h;           // [T, B, H], [B, H]; y is read by the gradient
    // The gradient:
    const void *dy, *dy_h;          // [T, B, H], [B, H] or null for zeros
    void *dx, *du, *dh0, *du_rows;  // [T, B, H], [H], [B, H], and [B, H] to work in where du is [H]
};

constexpr int32_t CLIP = 6;

// Runs task(argument, 0) to task(argument, count - 1) in any order, on any threads, and returns when all are done.
typedef void (*Task)(void* argument, size_t index);
typedef void (*ParallelFor)(void* context, size_t count, Task task, void* argument);

constexpr int64_t LINE = 64;  // bytes; pieces of work begin at multiples of it, counted from the start of a step

// Steps of one visit to a row's columns. Where a piece has few columns, many steps lie close together; where it has many, few steps at a
// time walk X and Y in long runs of memory, and more than one saves reading the state back. Measured at (784, 32, 128), float32, AVX-512,
// one thread, in times of memcpy: 1 step 1.02, 4 steps 1.01, 64 steps 1.05, all 1.68. Where weights vary more arrays are walked: forward takes
// 1.00 ms with 4 steps at least, 0.90 with 2 and with 1, the gradient 2.94, 2.60 and 2.59.
// static: of a copy shared by all files the linker might keep one that needs AVX-512.
// Tried and left out: prefetching by hand (1.00).
static inline int64_t tile_of(int64_t columns, size_t size, bool varying) {
    const int64_t steps = 65536 / (columns * int64_t(size) + 1), least = varying ? 2 : 4;
    return steps < least ? least : steps;
}

// Whether Y is stored past the caches: it is so large that its first steps have left a core's own by the time that they are read, and its
// rows are whole lines.
static inline bool past_caches(const Call& call, size_t size) {
    const int64_t row = call.H * int64_t(size);
    return call.T * call.B * row >= 8 << 20 && row % LINE == 0 && (uintptr_t)call.y % LINE == 0;
}

// Columns [first, last) of [T, B * H].
struct Isa {
    void (*run[2])(const Call&, int64_t first, int64_t last);  // by dtype
};

// The whole call in at most `pieces` pieces, by parallel_for or, where that is null, one after another. 0, or 1 for a call that makes no
// sense, or 2 for an instruction set that this machine has not.
int run_call(const Call& call, int64_t pieces, ParallelFor parallel_for, void* context);

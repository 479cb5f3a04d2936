// The C interface of the CPU kernel: chooses the instruction set and divides the work.
#include "indrnn_call.h"

#include <algorithm>

#define EXPORT extern "C" __attribute__((visibility("default")))

extern const Isa indrnn_plain;
#ifdef INDRNN_X86
extern const Isa indrnn_avx2, indrnn_avx512;
#endif

static const Isa* isa_of(int32_t wanted) {
    enum { BEST, PLAIN, AVX2, AVX512 };
#ifdef INDRNN_X86
    static const bool avx2 = __builtin_cpu_supports("avx2");
    static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && (wanted == BEST || wanted == AVX512)) return &indrnn_avx512;
    if (avx2 && (wanted == BEST || wanted == AVX2)) return &indrnn_avx2;
#endif
    return wanted == BEST || wanted == PLAIN ? &indrnn_plain : nullptr;
}

static bool makes_sense(const Call& c) {
    const bool shape = c.T >= 0 && c.B >= 0 && c.H >= 0;
    const bool options = (c.dtype == 0 || c.dtype == 1) && c.activation >= 0 && c.activation <= CLIP;
    const bool varying = c.varying == 1, fits = varying ? c.activation == CLIP : c.varying == 0 && c.activation != CLIP;
    const bool full = c.T && c.B && c.H, rows = c.B && c.H;
    const bool both = (c.u && c.y) || !full;
    const bool forward = (c.x || !full) && (c.y_h || !rows);
    const bool slope = c.activation != 1 || c.alpha >= 0;  // leaky_relu's output tells its slope only where it keeps the sign
    const bool by_u = varying ? c.du || !full : (c.du_rows || !rows) && (c.du || !c.H);
    const bool backward = ((c.dy && c.dx) || !full) && (c.dh0 || !rows) && by_u && slope;
    const bool bounds = !(varying && c.lo > c.hi);
    return shape && options && fits && bounds && both && (c.gradient ? backward : forward);
}

// du = the sum of the rows' parts, always in the order of the rows.
template <class T>
static void sum_rows(const Call& c) {
    const T* rows = static_cast<const T*>(c.du_rows);
    for (int64_t h = 0; h < c.H; ++h) {
        double sum = 0;
        for (int64_t b = 0; b < c.B; ++b) sum += double(rows[b * c.H + h]);
        static_cast<T*>(c.du)[h] = T(sum);
    }
}

int run_call(const Call& call, int64_t pieces, ParallelFor parallel_for, void* context) {
    if (!makes_sense(call)) return 1;
    const Isa* isa = isa_of(call.isa);
    if (!isa) return 2;
    struct Work {
        const Call& call;
        const Isa* isa;
        int64_t columns, step;
        void piece(size_t i) const {
            const int64_t first = int64_t(i) * step;
            isa->run[call.dtype](call, first, std::min(columns, first + step));
        }
    } work{call, isa, call.B * call.H, 0};
    if (work.columns > 0) {
        const int64_t line = LINE / (call.dtype ? 8 : 4);
        pieces = std::max<int64_t>(1, std::min(pieces, (work.columns + line - 1) / line));
        work.step = ((work.columns + pieces - 1) / pieces + line - 1) / line * line;
        const size_t count = size_t((work.columns + work.step - 1) / work.step);
        if (count > 1 && parallel_for)
            parallel_for(context, count, [](void* w, size_t i) { static_cast<const Work*>(w)->piece(i); }, &work);
        else
            for (size_t i = 0; i < count; ++i) work.piece(i);
    }
    if (call.gradient && !call.varying) call.dtype ? sum_rows<double>(call) : sum_rows<float>(call);
    return 0;
}

EXPORT int indrnn_run(const Call* call, int64_t pieces, ParallelFor parallel_for, void* context) {
    return call ? run_call(*call, pieces, parallel_for, context) : 1;
}

// 1 where this machine has the instruction set, as numbered in Call.
EXPORT int indrnn_has(int32_t isa) {
    return isa_of(isa) != nullptr;
}

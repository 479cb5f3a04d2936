// All the steps of one neuron of one row: what a thread of a GPU does (cuda_op.cu). The tests compile it for the CPU as well.
#pragma once

#include <stdint.h>
#include <string.h>

#include "activations.h"
#include "indrnn_call.h"

namespace INDRNN_ISA {

// One number, for the activations.
template <class T>
struct Scalar {
    using V = T;
    using W = typename Word<T>::type;
    INDRNN_STEP static V all(T a) { return a; }
    INDRNN_STEP static W bits(V v) {
        W w;
        memcpy(&w, &v, sizeof w);
        return w;
    }
    INDRNN_STEP static V of_bits(W w) {
        V v;
        memcpy(&v, &w, sizeof v);
        return v;
    }
};

// Steps loaded before they are wanted, twice over. A GPU hides a load's latency, some 700 ns, by having many under way: at 4 TB/s that is
// 1.4 MB of X, which 65,536 threads reach with 6 loads of 4 bytes each. To be tuned on a GPU: not yet measured.
constexpr int AHEAD = 8;

// Neuron n of the B * H of a step, forward. x and y do not overlap. VARYING: u differs from step to step.
template <template <class, class, class> class F, class T, bool VARYING = false>
INDRNN_STEP void column(const Call& call, int64_t n) {
    using A = F<Scalar<T>, T, T>;
    const int64_t N = call.B * call.H, b = n / call.H;
    int64_t length = call.lens ? call.lens[b] : call.T;
    length = length < 0 ? 0 : length > call.T ? call.T : length;
    const int64_t stride = call.reverse ? -N : N, start = n + (call.reverse && length ? (length - 1) * N : 0);
    const T* __restrict__ x = static_cast<const T*>(call.x) + start;
    T* __restrict__ y = static_cast<T*>(call.y) + start;
    const T* __restrict__ u = static_cast<const T*>(call.u) + (VARYING ? start : n - b * call.H);
    const Parameters<T> p{T(call.alpha), T(call.lo), T(call.hi)};
    T h = call.h0 ? static_cast<const T*>(call.h0)[n] : T(0);
    T now[AHEAD], next[AHEAD], w[AHEAD], next_w[AHEAD];
    INDRNN_UNROLL
    for (int k = 0; k < AHEAD; ++k) {
        next[k] = k < length ? x[k * stride] : T(0);
        next_w[k] = k < length || !VARYING ? u[VARYING ? k * stride : 0] : T(0);
    }
    for (int64_t t = 0; t < length; t += AHEAD) {
        INDRNN_UNROLL
        for (int k = 0; k < AHEAD; ++k) {
            now[k] = next[k], w[k] = next_w[k];
            next[k] = t + AHEAD + k < length ? x[(t + AHEAD + k) * stride] : T(0);
            if (VARYING) next_w[k] = t + AHEAD + k < length ? u[(t + AHEAD + k) * stride] : T(0);
        }
        INDRNN_UNROLL
        for (int k = 0; k < AHEAD; ++k)
            if (t + k < length) y[(t + k) * stride] = h = A::value(now[k] + w[k] * h, p);
    }
    for (int64_t t = length; t < call.T; ++t) static_cast<T*>(call.y)[t * N + n] = T(0);
    static_cast<T*>(call.y_h)[n] = h;
}

}  // namespace INDRNN_ISA

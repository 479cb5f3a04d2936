// The recurrence h_t = f(x_t + u_t * h_{t-1}) and its gradient, over a range of neurons. Where u is one number per neuron it is IndRNN's (Li et
// al., CVPR 2018, arXiv 1803.04831, equation 4); where it differs from step to step (VARYING) it is that of every diagonal recurrence.
//
// The one source of every CPU implementation: isa.cpp compiles it once per instruction set, into a namespace of its own (INDRNN_ISA).
// Neurons never meet: a row of the arrays [T, B, H] is N = B * H independent columns, and any range of columns is a piece of work.
// Only multiplication, addition, division, comparison and bit operations are used, each rounded by itself (-ffp-contract=off), so a
// neuron's bits depend neither on the vector that held it, nor on its neighbours, the threads, the instruction set or the split in time.
#pragma once

#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "activations.h"
#include "indrnn_call.h"

// No std:: templates here: the linker keeps one copy of an inline function, and it might be one that needs AVX-512.
namespace INDRNN_ISA {

// LANES neurons at once. In memory they need no more alignment than one.
template <class T, int LANES>
struct Lanes {
    typedef T V __attribute__((vector_size(LANES * sizeof(T))));
    typedef typename Word<T>::type W __attribute__((vector_size(LANES * sizeof(T))));

    static V load(const T* p) {
        V v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
    static void store(T* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
    // Stores past the caches, a line that is written whole is not read first. p: a multiple of the vector's bytes.
    static void stream(T* p, V v) {
#if defined(__AVX512F__)
        if constexpr (sizeof v == 64) return _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(__AVX2__)
        if constexpr (sizeof v == 32) return _mm256_stream_si256((__m256i*)p, (__m256i)v);
#elif defined(__SSE2__)
        if constexpr (sizeof v == 16) return _mm_stream_si128((__m128i*)p, (__m128i)v);
#endif
        store(p, v);
    }
    // After the last of them: other threads see them from here on.
    static void streamed() {
#ifdef __SSE2__
        _mm_sfence();
#endif
    }
    static V all(T a) { return V{} + a; }
    static W bits(V v) { return (W)v; }
    static V of_bits(W w) { return (V)w; }
};

// `steps` steps of VECS * LANES neurons with the state in registers. Consecutive steps lie `stride` apart (negative in reverse);
// h is the state before the first, or null for zeros. u: VARYING, of the first step. last: null, or where the last state goes while y is
// stored past the caches: read back from y it would come from memory.
template <template <class, class, class> class F, bool VARYING, class T, int LANES, int VECS>
void forward_block(const T* x, const T* u, const T* h, T* y, T* last, int64_t steps, int64_t stride, Parameters<T> p) {
    using L = Lanes<T, LANES>;
    using V = typename L::V;
    using A = F<L, V, T>;
    V s[VECS], w[VECS];
    for (int v = 0; v < VECS; ++v) {
        s[v] = h ? L::load(h + v * LANES) : L::all(T(0));
        w[v] = L::load(u + v * LANES);
    }
    for (int64_t t = 0; t < steps; ++t, x += stride, y += stride) {
        for (int v = 0; v < VECS; ++v) {
            if constexpr (VARYING) w[v] = L::load(u + v * LANES);
            s[v] = A::value(L::load(x + v * LANES) + w[v] * s[v], p);
            last ? L::stream(y + v * LANES, s[v]) : L::store(y + v * LANES, s[v]);
        }
        if constexpr (VARYING) u += stride;
    }
    for (int v = 0; last && v < VECS; ++v) L::store(last + v * LANES, s[v]);
}

// The same backwards: y and dy point at the last of the steps, stride leads to the one before. `before` is the state before the
// first step: another step's y, or what was carried in, or null for zeros. g: the gradient by the state, in and out; du: that by u, summed
// up over the steps or, VARYING, of each step as u is.
template <template <class, class, class> class F, bool VARYING, class T, int LANES, int VECS>
void backward_block(const T* dy, const T* y, const T* u, const T* before, T* g, T* du, T* dx, int64_t steps, int64_t stride, Parameters<T> p) {
    using L = Lanes<T, LANES>;
    using V = typename L::V;
    using A = F<L, V, T>;
    V a[VECS], h[VECS], w[VECS], sum[VECS];
    for (int v = 0; v < VECS; ++v) {
        a[v] = L::load(g + v * LANES);
        h[v] = L::load(y + v * LANES);
        w[v] = L::load(u + v * LANES);
        sum[v] = VARYING ? L::all(T(0)) : L::load(du + v * LANES);
    }
    for (int64_t t = 0; t < steps; ++t, dy += stride, dx += stride) {
        y += stride;
        const T* earlier = t + 1 < steps ? y : before;
        for (int v = 0; v < VECS; ++v) {
            V d = A::slope(L::load(dy + v * LANES) + a[v], h[v], p);
            L::store(dx + v * LANES, d);
            if constexpr (VARYING) w[v] = L::load(u + v * LANES);
            a[v] = d * w[v];
            if (earlier) {
                h[v] = L::load(earlier + v * LANES);
                sum[v] = VARYING ? d * h[v] : sum[v] + d * h[v];
            }
            if constexpr (VARYING) L::store(du + v * LANES, earlier ? sum[v] : L::all(T(0)));
        }
        if constexpr (VARYING) u += stride, du += stride;
    }
    for (int v = 0; v < VECS; ++v) {
        L::store(g + v * LANES, a[v]);
        if constexpr (!VARYING) L::store(du + v * LANES, sum[v]);
    }
}

constexpr int REGISTERS = INDRNN_ISA_REGISTERS;  // vectors of state in one block

// n neurons of one row: as many widest blocks as fit, then ever narrower ones.
template <template <class, class, class> class F, bool VARYING, class T, int LANES, int VECS>
void forward_columns(const T* x, const T* u, const T* h, T* y, T* last, int64_t n, int64_t steps, int64_t stride, Parameters<T> p) {
    constexpr int width = LANES * VECS;
    int64_t c = 0;
    for (; c + width <= n; c += width)
        forward_block<F, VARYING, T, LANES, VECS>(x + c, u + c, h ? h + c : h, y + c, last ? last + c : last, steps, stride, p);
    if constexpr (width > 1)
        if (c < n) {
            constexpr int narrower = VECS > 1 ? LANES : LANES / 2;
            constexpr int fewer = VECS > 1 ? VECS / 2 : 1;
            forward_columns<F, VARYING, T, narrower, fewer>(x + c, u + c, h ? h + c : h, y + c, last ? last + c : last, n - c, steps, stride, p);
        }
}

template <template <class, class, class> class F, bool VARYING, class T, int LANES, int VECS>
void backward_columns(const T* dy, const T* y, const T* u, const T* before, T* g, T* du, T* dx, int64_t n, int64_t steps, int64_t stride,
                      Parameters<T> p) {
    constexpr int width = LANES * VECS;
    int64_t c = 0;
    for (; c + width <= n; c += width)
        backward_block<F, VARYING, T, LANES, VECS>(dy + c, y + c, u + c, before ? before + c : before, g + c, du + c, dx + c, steps, stride, p);
    if constexpr (width > 1)
        if (c < n) {
            constexpr int narrower = VECS > 1 ? LANES : LANES / 2;
            constexpr int fewer = VECS > 1 ? VECS / 2 : 1;
            backward_columns<F, VARYING, T, narrower, fewer>(dy + c, y + c, u + c, before ? before + c : before, g + c, du + c, dx + c, n - c,
                                                             steps, stride, p);
        }
}

// A row's part of a piece: neurons [c, c + n) of row b, which runs `length` steps; step s is at time length - 1 - s in reverse.
struct Part {
    int64_t b, c, n, length;
};

template <class Visit>
void for_parts(const Call& call, int64_t first, int64_t last, Visit visit) {
    for (int64_t at = first; at < last;) {
        int64_t b = at / call.H, c = at - b * call.H;
        int64_t n = call.H - c < last - at ? call.H - c : last - at;
        int64_t length = call.lens ? call.lens[b] : call.T;
        length = length < 0 ? 0 : length > call.T ? call.T : length;
        visit(Part{b, c, n, length});
        at += n;
    }
}

template <class T>
void fill(T* p, int64_t n, T value) {
    for (int64_t i = 0; i < n; ++i) p[i] = value;
}
template <class T>
void copy(T* to, const T* from, int64_t n) {
    if (from)
        __builtin_memcpy(to, from, size_t(n) * sizeof(T));
    else
        fill(to, n, T(0));
}

template <class T>
Parameters<T> parameters(const Call& call) {
    return {T(call.alpha), T(call.lo), T(call.hi)};
}

// Columns [first, last) of [T, B * H]. Time goes in tiles, so that X and Y are walked in long runs of memory.
template <template <class, class, class> class F, bool VARYING, class T>
void forward(const Call& call, int64_t first, int64_t last) {
    constexpr int lanes = INDRNN_ISA_BYTES / sizeof(T);
    const int64_t N = call.B * call.H, tile = tile_of(last - first, sizeof(T), VARYING);
    const T *x = (const T*)call.x, *u = (const T*)call.u, *h0 = (const T*)call.h0;
    T* y = (T*)call.y;
    const bool past = past_caches(call, sizeof(T));
    const Parameters<T> numbers = parameters<T>(call);
    for (int64_t s0 = 0; s0 < call.T; s0 += tile) {
        const int64_t s1 = s0 + tile < call.T ? s0 + tile : call.T;
        for_parts(call, first, last, [&](const Part& p) {
            const int64_t column = p.b * call.H + p.c, stride = call.reverse ? -N : N;
            const int64_t live = p.length < s1 ? p.length : s1;
            if (s0 < live) {
                const int64_t at = (call.reverse ? p.length - 1 - s0 : s0) * N + column;
                T* kept = past ? (T*)call.y_h + column : nullptr;
                const T* before = past ? kept : y + at - stride;
                const T* h = s0 ? before : h0 ? h0 + column : nullptr;
                const T* w = u + (VARYING ? at : p.c);
                forward_columns<F, VARYING, T, lanes, REGISTERS>(x + at, w, h, y + at, kept, p.n, live - s0, stride, numbers);
            }
            for (int64_t t = s0 > p.length ? s0 : p.length; t < s1; ++t) fill(y + t * N + column, p.n, T(0));
        });
    }
    for_parts(call, first, last, [&](const Part& p) {
        if (past && p.length) return;  // it is there
        const int64_t column = p.b * call.H + p.c;
        const T* h = p.length ? y + (call.reverse ? 0 : p.length - 1) * N + column : h0 ? h0 + column : nullptr;
        copy((T*)call.y_h + column, h, p.n);
    });
    if (past) Lanes<T, 1>::streamed();
}

template <template <class, class, class> class F, bool VARYING, class T>
void backward(const Call& call, int64_t first, int64_t last) {
    constexpr int lanes = INDRNN_ISA_BYTES / sizeof(T);
    const int64_t N = call.B * call.H, tile = tile_of(last - first, sizeof(T), VARYING);
    const T *dy = (const T*)call.dy, *y = (const T*)call.y, *u = (const T*)call.u, *h0 = (const T*)call.h0;
    T *dx = (T*)call.dx, *g = (T*)call.dh0, *du = (T*)(VARYING ? call.du : call.du_rows);
    const Parameters<T> numbers = parameters<T>(call);
    copy(g + first, call.dy_h ? (const T*)call.dy_h + first : nullptr, last - first);
    if (!VARYING) fill(du + first, last - first, T(0));
    for (int64_t s1 = call.T; s1 > 0;) {
        const int64_t s0 = (s1 - 1) / tile * tile;
        for_parts(call, first, last, [&](const Part& p) {
            const int64_t column = p.b * call.H + p.c, stride = call.reverse ? N : -N;
            const int64_t live = p.length < s1 ? p.length : s1;
            if (s0 < live) {
                const int64_t at = (call.reverse ? p.length - live : live - 1) * N + column;
                const T* before = s0 ? y + at + (live - s0) * stride : h0 ? h0 + column : nullptr;
                backward_columns<F, VARYING, T, lanes, REGISTERS / 2>(dy + at, y + at, u + (VARYING ? at : p.c), before, g + column,
                                                                      du + (VARYING ? at : column), dx + at, p.n, live - s0, stride, numbers);
            }
            for (int64_t t = s0 > p.length ? s0 : p.length; t < s1; ++t) {
                fill(dx + t * N + column, p.n, T(0));
                if (VARYING) fill(du + t * N + column, p.n, T(0));
            }
        });
        s1 = s0;
    }
}

template <class T>
void run(const Call& call, int64_t first, int64_t last) {
    using Piece = void (*)(const Call&, int64_t, int64_t);
    constexpr Piece forwards[] = {forward<Relu, false, T>,    forward<LeakyRelu, false, T>, forward<Tanh, false, T>,
                                  forward<Sigmoid, false, T>, forward<Identity, false, T>,  forward<Piecewise, false, T>,
                                  forward<Clip, true, T>};
    constexpr Piece backwards[] = {backward<Relu, false, T>,    backward<LeakyRelu, false, T>, backward<Tanh, false, T>,
                                   backward<Sigmoid, false, T>, backward<Identity, false, T>,  backward<Piecewise, false, T>,
                                   backward<Clip, true, T>};
    (call.gradient ? backwards : forwards)[call.activation](call, first, last);
}

}  // namespace INDRNN_ISA

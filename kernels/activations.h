// The activations and their slopes, over whatever holds the values: a vector of a CPU (indrnn.h) or one number of a GPU's thread (column.h).
//
// L says what that is: L::V the values, L::W their bits, L::all(a) the value a throughout, L::bits and L::of_bits from one to the other.
// The arithmetic is the same in both, operation by operation, so that both give the same bits.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define INDRNN_STEP __host__ __device__
#define INDRNN_UNROLL _Pragma("unroll")
#else
#define INDRNN_STEP
#define INDRNN_UNROLL
#endif

namespace INDRNN_ISA {

template <class T>
struct Word;
template <>
struct Word<float> {
    using type = uint32_t;
    static constexpr int mantissa = 23, bias = 127, terms = 7;  // terms: of the series of exp; its error is below half an ulp
    static constexpr float round = 12582912.f;                  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // the high part has few bits: n * high is exact
    static constexpr float exp_limit = 87.f, tanh_limit = 20.f;
};
template <>
struct Word<double> {
    using type = uint64_t;
    static constexpr int mantissa = 52, bias = 1023, terms = 13;
    static constexpr double round = 6755399441055744.;
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
    static constexpr double exp_limit = 708., tanh_limit = 44.;
};

template <class L, class V, class T>
INDRNN_STEP V at_most(V x, T limit) {  // NaN stays NaN, here and below
    return x > limit ? L::all(limit) : x;
}
template <class L, class V, class T>
INDRNN_STEP V at_least(V x, T limit) {
    return x < limit ? L::all(limit) : x;
}

// exp(x) - 1 = scale * q + (scale - 1) with scale = 2^n and |x - n ln 2| <= ln 2 / 2. x must be within the limits, or NaN.
template <class L, class V, class T>
struct Exp {
    V q, scale;
    INDRNN_STEP explicit Exp(V x) {
        using C = Word<T>;
        V z = x * T(1.44269504088896340736) + C::round;
        V n = z - C::round;
        V r = x - n * C::ln2_high - n * C::ln2_low;
        q = L::all(T(1));  // r + r^2/2 + r^3/6 + ..., from its last term
        INDRNN_UNROLL
        for (int k = C::terms; k > 1; --k) q = q * r * T(1. / k) + T(1);
        q = q * r;
        // z holds n in its low bits; what is above is shifted out
        scale = L::of_bits((L::bits(z) + typename C::type(C::bias)) << C::mantissa);
    }
};

// The numbers that an activation may ask for: the slope below 0; least and most, NaN where there is none, since no comparison with it holds.
template <class T>
struct Parameters {
    T alpha, lo, hi;
};

// Each activation: its value f(a), and its slope times a gradient g, told from its output h (alpha >= 0 keeps the sign).
template <class L, class V, class T>
struct Relu {
    INDRNN_STEP static V value(V a, Parameters<T>) { return a < T(0) ? L::all(T(0)) : a; }
    INDRNN_STEP static V slope(V g, V h, Parameters<T>) { return h <= T(0) ? L::all(T(0)) : g; }
};
template <class L, class V, class T>
struct LeakyRelu {
    INDRNN_STEP static V value(V a, Parameters<T> p) { return a > T(0) ? a : a * p.alpha; }
    INDRNN_STEP static V slope(V g, V h, Parameters<T> p) { return h > T(0) ? g : g * p.alpha; }
};
template <class L, class V, class T>
struct Tanh {
    INDRNN_STEP static V value(V a, Parameters<T>) {  // (e - 1) / (e + 1) with e = exp(2 |a|), without cancellation near 0
        constexpr auto sign = typename Word<T>::type(1) << (sizeof(T) * 8 - 1);
        V b = L::of_bits(L::bits(a) & ~sign);
        Exp<L, V, T> e(at_most<L>(V(b + b), Word<T>::tanh_limit));
        V m = e.q * e.scale + (e.scale - T(1));
        return L::of_bits(L::bits(V(m / (m + T(2)))) | (L::bits(a) & sign));
    }
    INDRNN_STEP static V slope(V g, V h, Parameters<T>) { return g * (T(1) - h * h); }
};
template <class L, class V, class T>
struct Sigmoid {
    INDRNN_STEP static V value(V a, Parameters<T>) {
        Exp<L, V, T> e(at_least<L>(at_most<L>(V(-a), Word<T>::exp_limit), -Word<T>::exp_limit));
        return T(1) / (e.q * e.scale + e.scale + T(1));
    }
    INDRNN_STEP static V slope(V g, V h, Parameters<T>) { return g * (T(1) - h) * h; }
};
template <class L, class V, class T>
struct Identity {
    INDRNN_STEP static V value(V a, Parameters<T>) { return a; }
    INDRNN_STEP static V slope(V g, V, Parameters<T>) { return g; }
};
template <class L, class V, class T>
struct Piecewise {
    INDRNN_STEP static V value(V a, Parameters<T>) { return at_most<L>(at_least<L>(a, T(-1)), T(1)); }
    INDRNN_STEP static V slope(V g, V h, Parameters<T>) {  // 0 at the bounds, as relu's
        V b = h <= T(-1) ? L::all(T(0)) : g;
        return h >= T(1) ? L::all(T(0)) : b;
    }
};
template <class L, class V, class T>
struct Clip {
    INDRNN_STEP static V value(V a, Parameters<T> p) {
        V b = a < p.lo ? L::all(p.lo) : a;
        return b > p.hi ? L::all(p.hi) : b;
    }
    INDRNN_STEP static V slope(V g, V h, Parameters<T> p) {  // 0 at the bounds, as relu's
        V b = h <= p.lo ? L::all(T(0)) : g;
        return h >= p.hi ? L::all(T(0)) : b;
    }
};

}  // namespace INDRNN_ISA

// Evidence on bodies, one frame after another: frames/anatomy.py in one call, so that a batch of small rows costs microseconds.
#include "bodies.h"

#include <math.h>
#include <string.h>

#include <algorithm>

namespace {

enum Entry { FRAMES, MEAN, MEAN2, FORM, LIMB, SHALLOW, STANDS, UP, SIDED, AHEAD, FOLLOWS, MOVES, EVER, STOOD, UNSEEN, UNSEEN2, ENTRIES };

constexpr int MOST = 64;  // pairs, and joints
constexpr int BITS = 24;  // of a float that are exact: of 48 joints it is kept whether they were seen

// What one person's frame says by itself.
struct Look {
    float off[MOST];  // logarithms of the pairs' lengths, less those of a usual body; infinite where a joint was not seen
    int count;        // pairs of which both joints were
    bool known, posed;
};

// Within 3e-7 of the logarithm of a positive, normal x, and free of branches and calls: a compiler takes many at a time.
float logarithm(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t shifted = bits - 0x3f3504f3;  // of sqrt(1/2)
    const float exponent = float(int32_t(shifted) >> 23);
    bits = (shifted & 0x007fffff) + 0x3f3504f3;
    memcpy(&x, &bits, sizeof bits);
    const float f = x - 1, z = f / (f + 2), w = z * z;
    const float series = 2 * z * (1 + w * (0.333333333f + w * (0.2f + w * (0.142857143f + w * 0.111111111f))));
    return exponent * 0.693147181f + series;
}

uint64_t unpacked(float low, float high) {
    const auto bits = [](float x) { return x > 0 ? uint64_t(std::min(x, float((1 << BITS) - 1))) : uint64_t(0); };
    return bits(low) | bits(high) << BITS;
}

// The middle of what is not infinite, by counting for each how many are less: sorting some 18 costs several times that.
float median(const Look& look, int64_t pairs) {
    if (!look.count) return 0;
    const int low = (look.count - 1) / 2, high = look.count / 2;
    float sum = 0;
    for (int64_t i = 0; i < pairs; ++i) {
        const float own = look.off[i];
        int less = 0;
        for (int64_t k = 0; k < i; ++k) less += look.off[k] <= own;
        for (int64_t k = i + 1; k < pairs; ++k) less += look.off[k] < own;
        if (less == low) sum += own;
        if (less == high) sum += own;
    }
    return sum / 2;
}

// Brings a frame [J, 3] of one person into bounds; whether there is anybody.
bool bring(const BodyCall& c, const float* x, float* inside) {
    uint32_t any = 0;
    for (int64_t i = 0; i < 3 * c.J; ++i) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        any |= bits << 1;  // -0 is 0
        inside[i] = std::min(std::max(x[i], -c.farthest), c.farthest);
    }
    return any;
}

// Reads a frame that has been brought into bounds. `lost`: which of its joints hold their place.
void see(const BodyCall& c, const float* x, bool there, uint64_t lost, uint64_t posing, Look& look) {
    look.known = look.posed = false;
    if (!there) return;
    const float least = c.shortest * c.shortest;
    for (int64_t i = 0; i < c.pairs; ++i) {
        const float *a = x + 3 * c.joints[2 * i], *b = x + 3 * c.joints[2 * i + 1];
        const float d0 = a[0] - b[0], d1 = a[1] - b[1], d2 = a[2] - b[2];
        look.off[i] = std::max(d0 * d0 + d1 * d1 + d2 * d2, least);
    }
    for (int64_t i = 0; i < c.pairs; ++i) look.off[i] = 0.5f * logarithm(look.off[i]) - c.logs[i];
    look.count = int(c.pairs);
    for (int64_t i = 0; lost && i < c.pairs; ++i) {
        const int32_t a = c.joints[2 * i], b = c.joints[2 * i + 1];
        const uint64_t both = (a < 2 * BITS ? uint64_t(1) << a : 0) | (b < 2 * BITS ? uint64_t(1) << b : 0);
        if (lost & both) look.off[i] = INFINITY, --look.count;
    }
    look.known = look.count >= std::max<int64_t>(2, c.pairs / 3);
    look.posed = !(lost & posing);
}

// Tells how the body stands: the least cosine of its lines and the vertical, and how far it points forward.
void stand(const BodyCall& c, const float* x, float* told) {
    float line[4][3] = {}, length[4];
    for (int64_t l = 0; l < c.ups + c.sides; ++l) {
        for (int64_t j = 0; j < c.J; ++j)
            if (const float w = c.weights[l * c.J + j]; w != 0)
                for (int k = 0; k < 3; ++k) line[l][k] += x[3 * j + k] * w;
        length[l] = sqrtf(std::max(line[l][0] * line[l][0] + line[l][1] * line[l][1] + line[l][2] * line[l][2], c.shortest * c.shortest));
    }
    float up = line[0][1] / length[0];
    for (int64_t l = 1; l < c.ups; ++l) up = std::min(up, line[l][1] / length[l]);
    told[STANDS] = told[EVER] = 1;
    told[UP] = up;
    told[STOOD] = up > c.upright;
    if (!c.sides) return;
    const float *u = line[0], *a = line[c.ups], *f = line[c.ups + 1];
    const float ahead = (u[1] * a[2] - u[2] * a[1]) * f[0] + (u[2] * a[0] - u[0] * a[2]) * f[1] + (u[0] * a[1] - u[1] * a[0]) * f[2];
    told[SIDED] = 1;
    told[AHEAD] = ahead / (length[0] * length[c.ups]);
}

void tell(const BodyCall& c, const float* x, const Look& before, const Look& now, float* told) {
    std::fill(told, told + ENTRIES, 0.0f);
    if (now.known) {
        const float size = median(now, c.pairs);
        float form = 0, limb = 0, low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < c.pairs; ++i) {
            const float far = now.off[i] < INFINITY ? fabsf(now.off[i] - size) : 0.0f;
            form += std::min(far, c.clipped);
            limb = std::max(limb, far);
        }
        for (int64_t j = 0; j < c.J; ++j) {
            low = std::min(low, x[3 * j + 2]), high = std::max(high, x[3 * j + 2]);
        }
        told[FRAMES] = 1, told[MEAN] = size, told[MEAN2] = size * size;
        told[FORM] = form / float(std::max(now.count, 1)), told[LIMB] = limb, told[SHALLOW] = high - low < c.flat;
        if (before.known) {
            float moved = 0;
            int both = 0;
            for (int64_t i = 0; i < c.pairs; ++i)
                if (std::max(now.off[i], before.off[i]) < INFINITY) moved += fabsf(now.off[i] - before.off[i]), ++both;
            told[FOLLOWS] = 1, told[MOVES] = moved / float(std::max(both, 1));
        }
    }
    if (c.ups && now.posed) stand(c, x, told);
}

// The names of the checks that a person's evidence fails.
uint8_t doubts(const BodyCall& c, const float* e) {
    const float n = e[FRAMES], poses = e[STANDS];
    const bool some = n >= c.fewest, posed = poses >= c.fewest_poses;
    uint8_t found = 0;
    if (some && fabsf(e[MEAN]) > c.size * n) found |= SIZE;
    if (some && (e[FORM] > c.shape * n || e[LIMB] > c.limb * n)) found |= SHAPE;
    if (some && (e[MEAN2] * n - e[MEAN] * e[MEAN] > c.breath * c.breath * n * n || e[MOVES] > c.change * e[FOLLOWS])) found |= CHANGE;
    if (posed && ((-e[UP] > c.up * poses && e[STOOD] < c.often * e[EVER]) || -e[UP] > c.down * poses)) found |= UPRIGHT;
    if (posed && -e[AHEAD] > c.side * e[SIDED]) found |= SIDES;
    if (some && e[SHALLOW] > c.depth * n) found |= FLAT;
    return found;
}

uint64_t gone(const uint8_t* lost, int64_t J) {
    uint64_t bits = 0;
    for (int64_t j = 0; lost && j < std::min<int64_t>(J, 2 * BITS); ++j) bits |= uint64_t(lost[j] != 0) << j;
    return bits;
}

// By their bits: a compiler takes many at a time, as of sums it may not.
bool finite(const float* x, int64_t n) {
    constexpr uint32_t exponent = 0x7f800000;
    uint32_t found = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & exponent) == exponent;
    }
    return !found;
}

}  // namespace

// Looks at frames x [B, T, P, J, 3], of which lengths [B] count, after states [B, graph] and evidence [B, P, ENTRIES] before them; lost
// [B, T, P, J] or null. Writes to out [B, graph + P * ENTRIES] the states `after` and the evidence, and to found [B] each row's doubts.
// Returns the doubts of all, or -1 for a call that makes no sense.
extern "C" __attribute__((visibility("default"))) int32_t indrnn_bodies(
    const BodyCall* call, const float* x, const int64_t* lengths, const float* state, const float* evidence, const uint8_t* lost,
    const float* after, float* out, uint8_t* found) {
    const BodyCall& c = *call;
    const int64_t one = 3 * c.J, whole = c.graph + c.P * ENTRIES;
    if (c.B < 0 || c.T < 1 || c.P < 1 || c.J < 1 || c.J > MOST || c.pairs < 1 || c.pairs > MOST || c.ups < 0 || c.ups > 2 || (c.sides != 0 && c.sides != 2) ||
        c.frame < 0 || c.frame + c.P * one > c.graph)
        return -1;
    uint64_t posing = 0;
    for (int64_t l = 0; l < c.ups + c.sides; ++l)
        for (int64_t j = 0; j < std::min<int64_t>(c.J, 2 * BITS); ++j) posing |= uint64_t(c.weights[l * c.J + j] != 0) << j;
    uint8_t all = 0;
    for (int64_t b = 0; b < c.B; ++b) {
        float* row = out + b * whole;
        memcpy(row, after + b * c.graph, size_t(c.graph) * sizeof(float));
        uint8_t doubted = finite(row, c.graph) ? 0 : NOT_FINITE;
        const int64_t n = std::clamp<int64_t>(lengths[b], 0, c.T);
        float frames = 0;
        for (int64_t p = 0; p < c.P; ++p) {
            const float* held = evidence + (b * c.P + p) * ENTRIES;
            float* sums = row + c.graph + p * ENTRIES;
            memcpy(sums, held, ENTRIES * sizeof(float));
            Look looks[2];
            float inside[3 * MOST];
            uint64_t away = unpacked(held[UNSEEN], held[UNSEEN2]);
            const bool was_there = bring(c, state + b * c.graph + c.frame + p * one, inside);
            see(c, inside, was_there, away, posing, looks[0]);
            for (int64_t t = 0; t < n; ++t) {
                const int64_t at = (b * c.T + t) * c.P + p;
                float told[ENTRIES];
                away = gone(lost ? lost + at * c.J : nullptr, c.J);
                Look &before = looks[t % 2], &now = looks[(t + 1) % 2];
                const bool there = bring(c, x + at * one, inside);
                see(c, inside, there, away, posing, now);
                tell(c, inside, before, now, told);
                for (int i = 0; i < UNSEEN; ++i) sums[i] = sums[i] * (i == EVER || i == STOOD ? 1.0f : c.forget) + told[i];
            }
            sums[UNSEEN] = float(away & ((1u << BITS) - 1)), sums[UNSEEN2] = float(away >> BITS);
            doubted |= doubts(c, sums);
            frames += sums[FRAMES];
        }
        if (-frames > c.absent) doubted |= NOBODY;
        all |= found[b] = doubted;
    }
    return all;
}

// What one look at the bodies of a batch is given. kernels/bodies.py repeats this layout; frames/anatomy.py says what it computes.
#pragma once

#include <stdint.h>

// All arrays are contiguous.
struct BodyCall {
    int64_t B, T, P, J;
    int64_t graph;  // numbers of a row's state that are the graph's; behind them stand ENTRIES of evidence a person
    int64_t frame;  // where among them the last frame [P, J, 3] begins
    int64_t pairs, ups, sides;  // lines: so many pairs of joints, then 0 to 2 that point up, then none or 2: from left to right, and forward
    const int32_t* joints;  // [pairs, 2]
    const float* logs;      // [pairs] logarithms of their lengths
    const float* weights;   // [ups + sides, J]
    float forget;           // what a frame weighs after the next one
    float shortest, clipped, farthest, upright, flat, fewest, fewest_poses;
    // Limits of the means; infinite where nothing is checked.
    float size, shape, limb, breath, change, up, often, down, side, depth, absent;
};

enum Doubt : uint8_t { SIZE = 1, SHAPE = 2, CHANGE = 4, UPRIGHT = 8, SIDES = 16, FLAT = 32, NOBODY = 64, NOT_FINITE = 128 };

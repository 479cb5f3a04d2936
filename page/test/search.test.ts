import { expect, test } from "vitest";
import { ofMotion, ofText } from "../src/neurons/properties.ts";
import { alike, byChance, commonEnd, distance, following, higherInside, parting } from "../src/neurons/search.ts";
import { courseOf } from "../src/neurons/compare.tsx";
import { pairs, type Watched } from "../src/neurons/source.ts";
import { Observable } from "../src/observable.ts";
import { Trace, drive, memory } from "../src/neurons/trace.ts";

/** A trace of neurons given row by row. */
function traceOf(rows: number[][], u = rows.map(() => 0.5)): Trace {
  const trace = new Trace([{ role: "hidden", layer: 0, offset: 0, size: rows.length, activation: "relu", u }]);
  const steps = rows[0]!.length;
  const values = new Float32Array(steps * rows.length);
  rows.forEach((row, n) => row.forEach((v, t) => (values[t * rows.length + n] = v)));
  trace.push({ values, shape: [steps, rows.length] });
  return trace;
}

test("a neuron that is on in the stretch and off elsewhere is found first, with 1", () => {
  const trace = traceOf([
    [1, 1, 1, 1, 1, 1],
    [0, 0, 5, 4, 0, 0],
    [3, 2, 0, 0, 1, 1],
  ]);
  const found = higherInside(trace, 2, 4, 3);
  expect(found.map((f) => f.neuron)).toEqual([1, 0, 2]);
  expect(found.map((f) => f.value)).toEqual([1, 0.5, 0]);
});

test("the share of pairs counts ties as half", () => {
  const trace = traceOf([[0, 1, 1, 2]]);
  expect(higherInside(trace, 2, 4, 1)[0]!.value).toBe((1 + 0.5 + 1 + 1) / 4);
});

test("a stretch that is everything or nothing has no outside", () => {
  const trace = traceOf([[0, 1]]);
  expect(higherInside(trace, 0, 2, 1)).toEqual([]);
  expect(higherInside(trace, 1, 1, 1)).toEqual([]);
});

test("the neuron that follows a property is found by the size of its correlation", () => {
  const property = [0, 1, 2, 3, 4];
  const trace = traceOf([
    [1, 0, 1, 0, 1],
    [9, 7, 5, 3, 1],
    [0, 0, 0, 0, 0],
  ]);
  const found = following(trace, property, 5);
  expect(found[0]!.neuron).toBe(1);
  expect(found[0]!.value).toBeCloseTo(-1, 6);
  expect(found.map((f) => f.neuron)).not.toContain(2);
});

test("steps where a property is not known are left out, and a constant is followed by nobody", () => {
  const trace = traceOf([[5, 1, 2, 3, 4]]);
  expect(following(trace, [NaN, 1, 2, 3, 4], 1)[0]!.value).toBeCloseTo(1, 6);
  expect(following(trace, [1, 1, 1, 1, 1], 1)).toEqual([]);
});

test("chance grows with neurons and falls with steps", () => {
  expect(byChance(1000, 100)).toBeCloseTo(Math.sqrt((2 * Math.log(2000)) / 100));
  expect(byChance(1000, 1)).toBe(1);
});

test("a like state is found elsewhere, not in the stretch", () => {
  const row = Array.from({ length: 40 }, (_, t) => (t === 5 || t === 30 ? 1 : 0));
  const trace = traceOf([row, row.map((v) => 1 - v)]);
  const found = alike(trace, 5, 6, 1);
  expect(found).toEqual([{ step: 30, value: 1 }]);
});

test("two states part and meet", () => {
  expect(distance(Float32Array.of(1, 0), Float32Array.of(1, 0), 0, 2)).toBe(0);
  expect(distance(Float32Array.of(1, 0), Float32Array.of(0, 1), 0, 2)).toBe(1);
  expect(distance(Float32Array.of(0), Float32Array.of(0), 0, 1)).toBe(0);
  expect(parting([0, 0, 0.5, 0.2, 0.01, 0.02], 0.05)).toEqual({ parted: 2, met: 4 });
  expect(parting([0, 0.5, 0.01, 0.2], 0.05)).toEqual({ parted: 1, met: null });
  expect(parting([0, 0], 0.05)).toEqual({ parted: null, met: null });
  expect(commonEnd(Array.from("abc"), Array.from("xbc"))).toBe(2);
});

test("half is left after log ½ / log |u| steps", () => {
  expect(memory(0.5)).toBeCloseTo(1);
  expect(memory(-0.99)).toBeCloseTo(68.97, 2);
  expect([memory(0), memory(1)]).toEqual([0, Infinity]);
});

test("what came in is exact where a relu neuron is on, and unknown where it is off", () => {
  expect(drive(3, 2, 0.5, "relu")).toBe(2);
  expect(drive(0, 2, 0.5, "relu")).toBeNull();
  expect(drive(0.3, 0.2, 0.5, "tanh")).toBeNull();
});

test("neurons are sorted by memory, layer by layer", () => {
  const parts = [0, 1].map((layer) => ({ role: "hidden", layer, offset: 0, size: 3, activation: "relu", u: [0.1, -0.9, 0.5] }));
  const trace = new Trace([...parts, { role: "pool", offset: 6, size: 9 }]);
  expect(trace.size).toBe(6);
  expect(Array.from(trace.sorted(trace.layers))).toEqual([1, 2, 0, 4, 5, 3]);
  expect(trace.name(4)).toBe("layer 2, neuron 1");
});

test("old steps are forgotten, and steps keep their numbers", () => {
  const trace = traceOf([[7]]);
  trace.push({ values: new Float32Array(2500).fill(1), shape: [2500, 1] });
  expect([trace.length, trace.dropped]).toEqual([2501, 501]);
  expect(trace.at(500)).toBeUndefined();
  expect(trace.at(2500)![0]).toBe(1);
  expect(() => trace.push({ values: new Float32Array(2), shape: [1, 2] })).toThrow("Expected 1 neurons, got 2");
});

test("a text has lines, words, quotes and capitals", () => {
  const of = Object.fromEntries(ofText(Array.from('A "b".\nc')).map((p) => [p.name, p.values]));
  expect(of["position in the line"]).toEqual([0, 1, 2, 3, 4, 5, 6, 0]);
  expect(of["inside quotes"]).toEqual([0, 0, 1, 1, 1, 0, 0, 0]);
  expect(of["capital letter"]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  expect(of["end of a sentence"]).toEqual([0, 0, 0, 0, 0, 1, 0, 0]);
});

test("a motion has heights and speeds, of the joints that are there", () => {
  const names = ["hip centre", "right hand"];
  const of = Object.fromEntries(ofMotion([[[0, 1, 0], [0, 2, 0]], [[0, 1, 0], [0, 2.1, 0]], [null, [0, 2, 0]]], names, 30).map((p) => [p.name, p.values]));
  expect(of["height of the right hand"]!.slice(0, 2)).toEqual([1, expect.closeTo(1.1)]);
  expect(of["height of the right hand"]![2]).toBeNaN();
  expect(of["speed of the right hand"]![1]).toBeCloseTo(3);
  expect(of["height of the left hand"]).toBeUndefined();
});

test("another session is held beside one from where it stands, step by step, whatever either read before", () => {
  const origin = traceOf([[1, 2, 3, 4, 5]]);
  const other = origin.beside();
  expect(other.length).toBe(5);
  for (const trace of [origin, other]) trace.push({ values: new Float32Array([7, 8]), shape: [2, 1] });
  const watched = (trace: Trace, ahead: number, read: string[]): Watched => ({ trace, ahead, read, changed: new Observable(0) });
  const found = pairs(watched(origin, 0, Array.from("abcdexy")), watched(other, 5, [...Array.from({ length: 5 }, () => ""), "x", "y"]), 5);
  expect(found).toEqual([[5, 5], [6, 6]]);
  expect(found.map(([a, b]) => [origin.at(a)![0], other.at(b)![0]])).toEqual([[7, 7], [8, 8]]);
});

test("where two states part and meet is said of a fork and of another session", () => {
  const met = { steps: 9, parted: 0, met: 4, last: 0.01, what: "" };
  expect(courseOf(met, "frame", null)).toBe("They parted at frame 1 after the fork and met again at frame 5: their distance is below 0.05 in every layer.");
  expect(courseOf(met, "frame", "1a2b…")).toBe("They are apart at first and met at frame 5: their distance is below 0.05 in every layer.");
  expect(courseOf({ ...met, met: null, last: 0.4 }, "frame", "1a2b…")).toBe("They are apart at first and have not met by frame 9: the distance there is 0.40.");
  expect(courseOf({ ...met, steps: 0 }, "frame", "1a2b…")).toContain("Neither has read anything");
});

import { expect, test } from "vitest";
import { marksAt } from "../src/action/why.tsx";
import { goesWith } from "../src/neurons/detail.tsx";
import { byWay, foremost, grade, largest, overTime, signed } from "../src/why/relevance.ts";

test("a joint counts by its gradient times its way from where it is on average, wherever the body stands", () => {
  const frames = [0, 1, 2].map((x) => [[x, 5, 1], [7, 7, 7]]);
  const gradient = frames.map(() => [[[2, 10, 0], [3, 3, 3]]]);
  const cells = byWay(gradient, frames);
  expect(cells.map((row) => row[0])).toEqual([-2, 0, 2]);
  expect(cells.map((row) => row[1])).toEqual([0, 0, 0]);
  const aside = byWay(gradient, frames.map((frame) => frame.map((place) => place.map((v) => v + 100))));
  expect(aside).toEqual(cells);
});

test("a joint that is not seen stands where it was seen last, and counts nothing before it was seen at all", () => {
  const gradient = [0, 1, 2].map(() => [[[1, 0, 0], [1, 0, 0]]]);
  expect(byWay(gradient, [[[0, 0, 0], null], [null, [2, 0, 0]], [[3, 0, 0], [4, 0, 0]]])).toEqual([[-1, 0], [-1, -1], [2, 1]]);
});

test("grades are of both signs, and what counts next to nothing has none", () => {
  expect([1, 0.5, 0.01, 0, -0.01, -0.5, -1].map((v) => grade(v, 1))).toEqual([7, 4, 0, 0, 0, -4, -7]);
  expect(grade(3, 0)).toBe(0);
});

test("the foremost are told for and against, none of them for nothing", () => {
  const values = overTime([[1, -2, 0, 0.5], [1, 0, 0, 0.5]]);
  expect(values).toEqual([2, -2, 0, 1]);
  expect(foremost(values, 2)).toEqual({ given: [{ index: 0, value: 2 }, { index: 3, value: 1 }], against: [{ index: 1, value: -2 }] });
  expect(largest(values)).toBe(2);
  expect([signed(1.234), signed(-0.5)]).toEqual(["+1.23", "−0.50"]);
});

test("a frame outside an explanation has no marks", () => {
  const reason = { label: "wave", from: 10, to: 12, cells: [[1, -4], [2, 0]], most: 4, logit: 1, off: 0.5 };
  expect(marksAt(reason, 9)).toBeNull();
  expect(marksAt(reason, 10)).toEqual([0.25, -1]);
  expect(marksAt(reason, 12)).toBeNull();
  expect(marksAt(null, 10)).toBeNull();
});

test("where a correlation is negative, a neuron goes against", () => {
  expect(goesWith([{ name: "inside quotes", r: -0.84 }])).toBe("It goes against: inside quotes (r = -0.84).");
  expect(goesWith([{ name: "space", r: 0.5 }, { name: "vowel", r: -0.3 }])).toBe("It goes with: space (r = 0.50); and against: vowel (r = -0.30).");
});

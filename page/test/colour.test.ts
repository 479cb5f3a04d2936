import { expect, test } from "vitest";
import { bits, level, likeliest, percent, pieces, visible } from "../src/characters/surprise.ts";
import { BOTH, POSITIVE, shade } from "../src/neurons/heat.ts";

test("surprise is in bits, and has a level from 0 to 7", () => {
  expect(bits(-Math.log(8))).toBeCloseTo(3);
  expect([0, 0.99, 1, 2.5, 4.5, 9.9, 10, 40].map(level)).toEqual([0, 0, 1, 2, 4, 6, 7, 7]);
});

test("the likeliest characters come first", () => {
  expect(likeliest([0.1, 0.7, 0.2], ["a", "b", "c"], 2)).toEqual([
    { char: "b", p: 0.7 },
    { char: "c", p: 0.2 },
  ]);
});

test("characters that nobody sees are named", () => {
  expect([" ", "\n", "\t", "x"].map(visible)).toEqual(["space", "line end ↵", "tab", "x"]);
});

test("percents are short", () => {
  expect([1, 0.42, 0.0312, 0.0001].map(percent)).toEqual(["100 %", "42 %", "3.1 %", "< 0.1 %"]);
});

test("a text is cut by code points, and nothing is lost", () => {
  expect(pieces("ab😀cd", 3)).toEqual(["ab😀", "cd"]);
  expect(pieces("", 3)).toEqual([]);
});

test("off is the darkest colour, and the highest value the lightest", () => {
  expect(shade(0, 2, false)).toBe(0);
  expect(shade(2, 2, false)).toBe(255);
  expect(shade(5, 2, false)).toBe(255);
  expect(shade(0.5, 2, false)).toBe(128);
  expect(shade(-1, 2, false)).toBe(0);
});

test("of values of both signs 0 is the middle", () => {
  expect([shade(0, 1, true), shade(1, 1, true), shade(-1, 1, true), shade(0, 0, true)]).toEqual([128, 255, 0, 128]);
});

test("lightness rises along the colours, so that nobody needs their hue", () => {
  const light = (c: number) => 0.2126 * (c & 255) + 0.7152 * ((c >> 8) & 255) + 0.0722 * ((c >> 16) & 255);
  for (let i = 1; i < 256; i++) expect(light(POSITIVE[i]!)).toBeGreaterThanOrEqual(light(POSITIVE[i - 1]!) - 0.6);
  expect(light(BOTH[128]!)).toBeLessThan(light(BOTH[0]!));
  expect(light(BOTH[128]!)).toBeLessThan(light(BOTH[255]!));
});

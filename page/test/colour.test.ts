import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bits, level, likeliest, percent, pieces, visible } from "../src/characters/surprise.ts";
import { channels } from "../src/paint.ts";
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

/** The colours of the style sheet by their names, light and dark. */
function themes(): Record<string, string>[] {
  const [light, dark] = readFileSync("src/style.css", "utf8").split("prefers-color-scheme: dark");
  return [light!, dark!].map((text) => Object.fromEntries(Array.from(text.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g), (m) => [m[1]!, m[2]!])));
}

/** WCAG's contrast between two colours. */
function contrast(a: string, b: string): number {
  const light = (colour: string) => {
    const [r, g, blue] = channels(colour).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * blue;
  };
  const [high, low] = [light(a), light(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

test("text can be read on every colour of surprise, of a neuron and of an explanation, light and dark", () => {
  for (const colour of themes()) {
    for (const kind of ["s", "n"]) for (let n = 1; n <= 7; n++) expect(contrast(colour["ink"]!, colour[`${kind}${n}`]!), `${kind}${n}`).toBeGreaterThanOrEqual(4.5);
    for (const kind of ["for", "against"]) {
      expect(contrast(colour[kind]!, colour["card"]!), kind).toBeGreaterThanOrEqual(4.5);
      expect(contrast(colour[kind]!, colour["stage"]!), kind).toBeGreaterThanOrEqual(3);
    }
  }
});

test("colours are read as the built style sheet shortens them", () => {
  expect([channels("#fff"), channels("#b3500a"), channels("#1b2")]).toEqual([[255, 255, 255], [179, 80, 10], [17, 187, 34]]);
});

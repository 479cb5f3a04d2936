/** The colours of the skeleton are told apart by the colour-blind, light and dark. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { channels } from "../src/paint.ts";

type Three = [number, number, number];

/**
 * What linear RGB becomes where one kind of cone is missing: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, A Physiologically-based Model
 * for Simulation of Color Vision Deficiency, IEEE Transactions on Visualization and Computer Graphics 15(6), 2009, severity 1.0.
 */
const MISSING: Record<string, [Three, Three, Three]> = {
  nothing: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};

/** Linear RGB (sRGB's primaries) to XYZ beside its white, D65. */
const XYZ: [Three, Three, Three] = [
  [0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047],
  [0.2126729, 0.7151522, 0.072175],
  [0.0193339 / 1.08883, 0.119192 / 1.08883, 0.9503041 / 1.08883],
];

const times = (matrix: [Three, Three, Three], v: Three) => matrix.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]) as Three;

/** Return a colour of the style sheet, as it is seen, in CIE's L*a*b*. */
function seen(colour: string, missing: [Three, Three, Three]): Three {
  const linear = channels(colour).map((c) => (c <= 10.31475 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)) as Three;
  const shown = times(missing, linear).map((c) => Math.min(1, Math.max(0, c))) as Three;
  const [x, y, z] = times(XYZ, shown).map((t) => (t > 216 / 24389 ? Math.cbrt(t) : ((24389 / 27) * t + 16) / 116)) as Three;
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** Return how far two colours in L*a*b* are from each other, CIEDE2000 (Sharma, Wu, Dalal 2005). */
function apart([L1, a1, b1]: Three, [L2, a2, b2]: Three): number {
  const [rad, deg] = [Math.PI / 180, 180 / Math.PI];
  const c7 = ((Math.hypot(a1, b1) + Math.hypot(a2, b2)) / 2) ** 7;
  const G = 0.5 * (1 - Math.sqrt(c7 / (c7 + 25 ** 7)));
  const [A1, A2] = [a1 * (1 + G), a2 * (1 + G)];
  const [C1, C2] = [Math.hypot(A1, b1), Math.hypot(A2, b2)];
  const hue = (b: number, a: number) => (a === 0 && b === 0 ? 0 : (Math.atan2(b, a) * deg + 360) % 360);
  const [h1, h2] = [hue(b1, A1), hue(b2, A2)];
  const grey = C1 * C2 === 0;
  const turn = grey ? 0 : ((h2 - h1 + 540) % 360) - 180;
  const dH = 2 * Math.sqrt(C1 * C2) * Math.sin((turn * rad) / 2);
  const [L, C] = [(L1 + L2) / 2, (C1 + C2) / 2];
  const h = grey ? h1 + h2 : (h1 + turn / 2 + 360) % 360;
  const T = 1 - 0.17 * Math.cos((h - 30) * rad) + 0.24 * Math.cos(2 * h * rad) + 0.32 * Math.cos((3 * h + 6) * rad) - 0.2 * Math.cos((4 * h - 63) * rad);
  const SL = 1 + (0.015 * (L - 50) ** 2) / Math.sqrt(20 + (L - 50) ** 2);
  const [SC, SH] = [1 + 0.045 * C, 1 + 0.015 * C * T];
  const RT = -Math.sin(60 * Math.exp(-(((h - 275) / 25) ** 2)) * rad) * 2 * Math.sqrt(C ** 7 / (C ** 7 + 25 ** 7));
  const [l, c, H] = [(L2 - L1) / SL, (C2 - C1) / SC, dH / SH];
  return Math.sqrt(l * l + c * c + H * H + RT * c * H);
}

/** The colours of the style sheet by their names, light and dark. */
function themes(): Record<string, string>[] {
  const [light, dark] = readFileSync("src/style.css", "utf8").split("prefers-color-scheme: dark");
  return [light!, dark!].map((text) => Object.fromEntries(Array.from(text.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g), (m) => [m[1]!, m[2]!])));
}

test("differences are those of the paper", () => {
  expect(apart([50, 2.6772, -79.7751], [50, 0, -82.7485])).toBeCloseTo(2.0425, 4);
  expect(apart([50, 2.5, 0], [73, 25, -18])).toBeCloseTo(27.1492, 4);
  expect(apart([50, -0.001, 2.49], [50, 0.0011, -2.49])).toBeCloseTo(4.7461, 4);
  expect(apart([50, 0, 0], [50, -1, 2])).toBeCloseTo(2.3669, 4);
  expect(apart([2.0776, 0.0795, -1.135], [0.9033, -0.0636, -0.5514])).toBeCloseTo(0.9082, 4);
});

test("white stays white, and without red cones red and green come close", () => {
  for (const missing of Object.values(MISSING)) expect(seen("#ffffff", missing)[0]).toBeCloseTo(100, 1);
  const red = (missing: [Three, Three, Three]) => apart(seen("#a04000", missing), seen("#4d6000", missing));
  expect(red(MISSING["nothing"]!)).toBeGreaterThan(30);
  expect(red(MISSING["deuteranopia"]!)).toBeLessThan(15);
});

test("left, right and middle of a body, and for and against, are told apart at a glance, whichever cones are missing", () => {
  // Of two patches side by side 2.3 is just noticed. Lines are thin and lie apart: 20 for what means two things, 10 for the trunk, which is
  // known by its place too. The least there is: 42.9 between the sides, 12.3 between left and middle, dark, without red cones.
  const least = { "left right": 20, "for against": 20, "left middle": 10, "right middle": 10, "left stage": 20, "right stage": 20, "middle stage": 20 };
  for (const colour of themes())
    for (const [who, missing] of Object.entries(MISSING))
      for (const [pair, bound] of Object.entries(least)) {
        const [a, b] = pair.split(" ").map((name) => seen(colour[name]!, missing)) as [Three, Three];
        expect(apart(a, b), `${pair}, ${who} missing`).toBeGreaterThanOrEqual(bound);
      }
});

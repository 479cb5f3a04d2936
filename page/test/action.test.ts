import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bones } from "../src/action/bones.ts";
import { unpacked, type Means } from "../src/action/demos.tsx";
import { HZ, MOTIONS, frames } from "../src/action/motions.ts";
import { answer, carriedOver, sureSince } from "../src/action/sureness.ts";

const UTD20 = ["head", "shoulder centre", "spine", "hip centre", ...["left", "right"].flatMap((s) => ["shoulder", "elbow", "wrist", "hand"].map((j) => `${s} ${j}`)), ...["left", "right"].flatMap((s) => ["hip", "knee", "ankle", "foot"].map((j) => `${s} ${j}`))]; // prettier-ignore

test("every demo motion is twenty joints of finite places, and moves smoothly", () => {
  for (const motion of MOTIONS) {
    const made = frames(motion);
    expect(made.length).toBe(Math.round(motion.seconds * HZ));
    expect(made.flat(2).every(Number.isFinite)).toBe(true);
    expect(made.every((frame) => frame.length === 20)).toBe(true);
    for (let t = 1; t < made.length; t++) {
      for (let j = 0; j < 20; j++) expect(Math.hypot(...made[t]![j]!.map((v, i) => v - made[t - 1]![j]![i]!)), `${motion.name}, frame ${t}, joint ${j}`).toBeLessThan(0.45);
    }
  }
});

test("bones keep their lengths", () => {
  const length = (frame: number[][], a: number, b: number) => Math.hypot(...frame[a]!.map((v, i) => v - frame[b]![i]!));
  for (const motion of MOTIONS) {
    for (const frame of frames(motion)) {
      for (const [a, b, metres] of [[8, 9, 0.275], [9, 10, 0.244], [4, 5, 0.275], [16, 17, 0.466], [17, 18, 0.351]] as const) {
        expect(Math.abs(length(frame, a, b) - metres), motion.name).toBeLessThan(0.01);
      }
    }
  }
});

test("the means of recordings say whose they are, and are bodies whose bones keep their lengths", () => {
  const file = JSON.parse(readFileSync("public/hdm05.json", "utf8")) as Means;
  expect(file.licence).toContain("CC BY-SA 3.0");
  expect(file.source).toContain("HDM05");
  expect(file.motions.length).toBe(8);
  expect(file.motions.filter(({ name }) => MOTIONS.some((drawn) => drawn.name === name))).toEqual([]);
  const length = (frame: number[][], a: number, b: number) => Math.hypot(...frame[a]!.map((v, i) => v - frame[b]![i]!));
  for (const { name, frames } of file.motions) {
    const made = unpacked(frames);
    for (const frame of made) {
      expect(frame.length).toBe(20);
      for (const [a, b] of [[8, 9], [9, 10], [4, 5], [16, 17], [17, 18]] as const) {
        expect(Math.abs(length(frame, a, b) - length(made[0]!, a, b)), name).toBeLessThan(0.003); // each place is a whole millimetre
      }
    }
  }
});

test("the wave is that of examples/", () => {
  expect(readFileSync("public/wave.json", "utf8")).toBe(readFileSync("../examples/wave.json", "utf8"));
});

test("a body of known joints has 19 bones, and another its nearest joints", () => {
  const still = UTD20.map((_, i) => [i, 0, 0]);
  const found = bones(UTD20, still);
  expect(found.length).toBe(19);
  expect(found.filter((b) => b.side === "left").length).toBe(8);
  const others = bones(["a", "b", "c"], [[0, 0, 0], [2, 0, 0], [1, 0, 0]]);
  expect(others.map((b) => [b.from, b.to])).toEqual([[0, 2], [2, 1]]);
});

test("below the threshold the answer is other, and the best class is still told", () => {
  expect(answer([0.2, 0.7, 0.1], ["a", "b", "c"], 0.77)).toEqual({ label: "other", score: 0.7, best: "b" });
  expect(answer([0.2, 0.7, 0.1], ["a", "b", "c"], null).label).toBe("b");
});

test("sure since the last time that the answer changed, and never of other", () => {
  const answers = ["a", "other", "b", "b", "b"].map((label) => ({ label, score: 1, best: label }));
  expect(sureSince(answers, 0, 4)).toBe(2);
  expect(sureSince(answers, 3, 4)).toBe(3);
  expect(sureSince(answers, 0, 1)).toBeNull();
});

test("the answer to the motion before is not since when this one is sure", () => {
  const answers = ["wave", "wave", "wave", "squat"].map((label) => ({ label, score: 1, best: label }));
  expect(carriedOver(answers, 0)).toBe(false);
  expect(carriedOver(answers, 2)).toBe(true);
  expect(carriedOver(answers, 3)).toBe(false);
});

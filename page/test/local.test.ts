import { expect, test } from "vitest";
import { LocalReader, logSoftmax, pick, seeded } from "../src/local/reader.ts";
import { readState, writeState } from "../src/local/state_file.ts";

const metadata = { format_version: "1", model: "toy", version: "1", digest: "d", step: "4", position: "9" };
const version = { alphabet: ["a", "b", "?"], unknown: "?", state: [{ role: "hidden", offset: 0, size: 1 }, { role: "last_logits", offset: 1, size: 3 }] }; // prettier-ignore

/** A graph that counts symbols in its first neuron, and always expects the symbol after the last. */
const graph = {
  run: (symbols: readonly number[], state: Float32Array) => {
    const logits = symbols.map((s) => Float32Array.from([0, 0, 0].map((_, k) => (k === (s + 1) % 2 ? 5 : 0))));
    return Promise.resolve({ logits, state: Float32Array.from([state[0]! + symbols.length, ...logits.at(-1)!]) });
  },
};
const begin = () => LocalReader.with(graph, version, writeState({ metadata: { ...metadata }, state: new Float32Array(4) }).buffer);

test("a state file is read as it was written, its data at a multiple of eight bytes", () => {
  const bytes = writeState({ metadata, state: Float32Array.of(1, -2.5) });
  expect(Number(new DataView(bytes.buffer).getBigUint64(0, true)) % 8).toBe(0);
  const read = readState(bytes.buffer);
  expect([read.metadata, Array.from(read.state)]).toEqual([metadata, [1, -2.5]]);
});

test("a text is one step, its characters are positions, and the first is scored from the state", async () => {
  const reader = begin();
  const read = await reader.read("ab€");
  expect(read[0]!.logprob).toBeCloseTo(Math.log(1 / 3));
  expect(read[1]!.logprob).toBeCloseTo(5 - Math.log(Math.exp(5) + 2));
  expect([read[2]!.char, read[2]!.logprob]).toEqual(["€", null]);
  expect([reader.step, reader.position]).toEqual([5, 12]);
  expect(readState(reader.write().buffer).state[0]).toBe(3);
});

test("drawing is one step, and ends when it is told to", async () => {
  const reader = begin();
  let left = 3;
  const drawn = [];
  for await (const one of reader.draw(10, { temperature: 0, topP: 1, random: () => 0 }, () => left-- > 0)) drawn.push(one.char);
  expect(drawn).toEqual(["a", "b", "a"]);
  expect([reader.step, reader.position]).toEqual([5, 12]);
  const none = await reader.draw(10, { temperature: 0, topP: 1, random: () => 0 }, () => false).next();
  expect(none.done).toBe(true);
  expect(reader.step).toBe(5);
});

test("the nucleus keeps the likeliest, and temperature 0 takes the best", () => {
  const scores = logSoftmax(Float32Array.from([0.5, 0.3, 0.2].map(Math.log)));
  expect(pick(scores, 0, 1, 0.99)).toBe(0);
  expect([0, 0.49, 0.51, 0.79, 0.81].map((r) => pick(scores, 1, 1, r))).toEqual([0, 0, 1, 1, 2]);
  expect(pick(scores, 1, 0.8, 0.999)).toBe(1);
  expect(pick(scores, 1, 0.01, 0.999)).toBe(0);
});

test("a seed gives the same numbers", () => {
  const [a, b, c] = [seeded(1), seeded(1), seeded(2)];
  const first = [a(), a()];
  expect([b(), b()]).toEqual(first);
  expect(c()).not.toBe(first[0]);
  expect(first.every((v) => v >= 0 && v < 1)).toBe(true);
});

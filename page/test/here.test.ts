import { afterEach, expect, test, vi } from "vitest";
import { LocalFrames } from "../src/local/frames.ts";
import { fraction } from "../src/local/rate.ts";
import { LocalRows } from "../src/local/rows.ts";
import { readState, writeState } from "../src/local/state_file.ts";
import { needGraph, versionOf } from "../src/local/refusals.ts";
import { columnsOf } from "../src/serving/rows.tsx";
import { graph, type Model, type Version } from "../src/service.ts";

afterEach(() => vi.unstubAllGlobals());

const metadata = { format_version: "1", model: "toy", version: "1", digest: "d", step: "4", position: "9" };
const limits = { max_frames: 100, max_text: 1, max_generate: 1, max_position: null };
const file = (extra: Record<string, string> = {}, size = 4) => writeState({ metadata: { ...metadata, ...extra }, state: new Float32Array(size) }).buffer;
const numbers = { layout: null, window: null, events: null, labels: null, values: [{ name: "level", unit: null }], answer: "step", limits } as unknown as Version;

/** A graph that adds up its first numbers in its state, and answers the sum. */
const adding = {
  step: [3],
  runNumbers: (steps: readonly Float32Array[], state: Float32Array) => {
    const after = state.slice();
    const logits = steps.map((step) => Float32Array.of((after[0]! += step[0]!), 0));
    return Promise.resolve({ logits, state: after });
  },
};

test("a carry is written beside the state, and read again", () => {
  const bytes = writeState({ metadata, state: Float32Array.of(1, 2), carry: Float32Array.of(3, 4, 5) }, [1, 1, 3]);
  const read = readState(bytes.buffer);
  expect([Array.from(read.state), Array.from(read.carry!)]).toEqual([[1, 2], [3, 4, 5]]);
  expect(new TextDecoder().decode(bytes)).toContain('"shape":[1,1,3]');
});

test("rows are one step and as many positions, and values are told by name", async () => {
  const here = LocalRows.with(adding, numbers, file());
  expect(await here.feed([[1, 0], [2, 0]])).toEqual({ outputs: { level: [1, 3] } });
  expect([here.step, here.position]).toEqual([5, 11]);
  const last = LocalRows.with(adding, { ...numbers, answer: "end" }, file());
  expect(await last.feed([[1], [2]])).toEqual({ outputs: { level: [3] } });
  const classes = LocalRows.with(adding, { ...numbers, labels: ["up", "none"] }, file());
  const { scores, best } = await classes.feed([[2]]);
  expect(best!.label).toBe("up");
  expect(scores![0]![0]! + scores![0]![1]!).toBeCloseTo(1);
  expect(best!.score).toBeCloseTo(1 / (1 + Math.exp(-2)));
});

test("what only the service can is refused in a sentence, and moves nothing", async () => {
  const refused = (change: object) => () => LocalRows.with(adding, { ...numbers, ...change }, file());
  expect(refused({ window: 512 })).toThrow("answers once for 512 rows");
  expect(refused({ layout: "utd20" })).toThrow("takes joints as numbers");
  expect(refused({ events: {} })).toThrow("tells events");
  expect(refused({ values: null })).toThrow("shapes of their own");
  const here = LocalRows.with(adding, { ...numbers, limits: { ...limits, max_position: 10 } }, file());
  await expect(here.feed([[1], [2]])).rejects.toThrow("made for 10 steps in a sequence, and this would be 11");
  await expect(here.feed([[1e39]])).rejects.toThrow("within float32");
  expect([here.step, here.position]).toEqual([4, 9]);
});

const skeleton = {
  ...numbers, layout: "two", layouts: { two: { joints: 2, joint_names: ["head", "hip centre"] } }, persons: 1, dims: 3, hz: 30, labels: ["a", "b"], other_below: null,
  bodies: null, state: [{ role: "last_frame", offset: 0, size: 6 }, { role: "last_logits", offset: 6, size: 2 }],
} as unknown as Version; // prettier-ignore

test("frames too far away, of another rate or timed are refused, and move nothing", async () => {
  const here = LocalFrames.with(adding, skeleton, file({}, 8));
  await expect(here.feed([[[51, 0, 0], null]], 30)).rejects.toThrow("within ±50, got 51");
  await expect(here.feed([[[1, 0, 0], null]], 15)).rejects.toThrow("Expected 30 frames a second");
  await expect(here.feed([[[1, 0, 0]]], 30)).rejects.toThrow("Expected 2 joints, got 1");
  expect([here.step, here.position]).toEqual([4, 9]);
  expect(() => LocalFrames.with(adding, skeleton, file({ carry_times: "0 1 2" }, 8))).toThrow("by its moments");
  expect(() => LocalFrames.with(adding, { ...skeleton, events: {} }, file({}, 8))).toThrow("as events");
});

test("a rate is the nearest fraction, as Python's", () => {
  expect([fraction(30), fraction(29.97), fraction(7.5), fraction(30000 / 1001)]).toEqual([[30, 1], [2997, 100], [15, 2], [19001, 634]]);
});

test("an output with a shape of its own has a column for each number", () => {
  expect(columnsOf({ y: [[1, 2], [3, 4]], z: [5, 6] })).toEqual([["y_0", [1, 3]], ["y_1", [2, 4]], ["z", [5, 6]]]);
});

test("a state runs by the version it is of, not by the newest, and by that one's graph alone", async () => {
  const version = (name: string, digest: string) => ({ ...numbers, version: name, digest });
  const model: Model = { name: "toy", kind: "tensor", modality: "tensor", versions: [version("1", "d"), version("2", "e")] };
  const of = (extra: Record<string, string>) => () => versionOf(model, { metadata: { ...metadata, ...extra }, state: new Float32Array(4) });
  expect(of({})().version).toBe("1");
  expect(of({ version: "3" })).toThrow("The session is of toy 3, which is not served any more: expected toy 1, 2.");
  expect(of({ model: "other" })).toThrow("of other 1, which is not served");
  expect(of({ digest: "e" })).toThrow("another file of toy 1 than the session's state is of: expected sha256 e…, got d…");
  expect(() => needGraph("toy 1", "d", "e")).toThrow("another file of toy 1");
  await expect(LocalRows.of(model, file({ version: "3" }))).rejects.toThrow("not served any more");
});

test("a graph comes with its sha256, also where a proxy has made the tag a weak one", async () => {
  const digest = "0123abcd".repeat(8);
  const tags = [`"${digest}"`, `W/"${digest}-gzip"`, null];
  vi.stubGlobal("document", { baseURI: "http://service/" });
  vi.stubGlobal("sessionStorage", { getItem: () => null });
  vi.stubGlobal("fetch", () => {
    const tag = tags.shift();
    return Promise.resolve(new Response("file", tag ? { headers: { etag: tag } } : {}));
  });
  const told = [await graph("toy", "1"), await graph("toy", "1"), await graph("toy", "1")];
  expect(told.map((one) => one.digest)).toEqual([digest, digest, null]);
  expect(new TextDecoder().decode(told[0]!.content)).toBe("file");
});

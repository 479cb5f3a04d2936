import { deflateRawSync } from "node:zlib";
import { expect, test } from "vitest";
import { readCsv } from "../src/action/readers/csv.ts";
import { readFile } from "../src/action/readers/file.ts";
import { readJson } from "../src/action/readers/json.ts";
import { readNpy, readNpz } from "../src/action/readers/npz.ts";
import { readNtu } from "../src/action/readers/ntu.ts";
import { NotReadable, candidates, convert, plainName, tableOf } from "../src/action/recording.ts";
import { table } from "../src/serving/rows.tsx";

const body = [[0, 1, 3], [0.5, 1, 3], null];

test("JSON: what /predict takes, a bare clip, persons, and MediaPipe's landmarks", () => {
  const asked = readJson(JSON.stringify({ sequences: [[body], [body, body]], hz: 15 }));
  expect(asked.clips.map((c) => c.frames.length)).toEqual([1, 2]);
  expect([asked.hz, asked.clips[0]!.frames[0]]).toEqual([15, body]);
  expect(readJson(JSON.stringify([body, body])).clips[0]!.frames.length).toBe(2);
  const nobody = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
  expect(readJson(JSON.stringify([[nobody, body]])).clips[0]!.frames[0]).toEqual(body);
  const landmarks = [{ landmarks: [{ x: 1, y: 2, z: 3, visibility: 1 }], world_landmarks: [{ x: 4, y: 5, z: 6 }] }];
  expect(readJson(JSON.stringify(landmarks)).clips[0]!.frames).toEqual([[[4, 5, 6]]]);
});

test("JSON that is none, or no clip, says what was expected", () => {
  expect(() => readJson("{")).toThrow("it is no JSON");
  expect(() => readJson("{}")).toThrow("Expected a clip");
  expect(() => readJson('[[["a", 1, 2]]]')).toThrow("Frame 0, joint 0: expected two or three numbers");
});

test("tables: a row a frame, or a row a joint", () => {
  const wide = readCsv("time,left_wrist_x,left_wrist_y,left_wrist_z,head_x,head_y,head_z,LeftHand_x,LeftHand_y,LeftHand_z\n0,1,2,3,4,5,6,7,8,9\n0.1,1,2,,4,5,6,7,8,9\n");
  expect(wide.names).toEqual(["left_wrist", "head", "LeftHand"]);
  expect(wide.names!.map(plainName)).toEqual(["left wrist", "head", "left hand"]);
  expect([wide.hz, wide.clips[0]!.frames[1]![0]]).toEqual([10, null]);
  const long = readCsv("frame;joint;x;y;z\n0;head;1;2;3\n0;hand;4;5;6\n1;head;1;2;3\n");
  expect(long.clips[0]!.frames).toEqual([[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], null]]);
  expect(() => readCsv("a,b\n1,2\n")).toThrow("Expected columns such as left_wrist_x");
  expect(() => readCsv("joint,x,y\nhead,1,oh\n")).toThrow("Row 2: expected numbers");
});

test("NTU: the body that is seen longest, and a joint at 0 was not seen", () => {
  const joint = (x: number) => `${x} 1 3 0 0 0 0 0 0 0 0 2`;
  const text = ["2", "2", "7 0 0 0 0 0 0 0 0 2", "2", joint(0.5), "0 0 0 0 0 0 0 0 0 0 0 0", "9 0 0 0 0 0 0 0 0 2", "2", joint(9), joint(9), "1", "7 0", "2", joint(0.6), joint(0.7)].join("\n");
  const read = readNtu(text);
  expect(read.clips[0]!.frames).toEqual([[[0.5, 1, 3], null], [[0.6, 1, 3], [0.7, 1, 3]]]);
  expect(read.format).toContain("of 2 bodies");
  expect(() => readNtu("hello")).toThrow("Line 1: expected the number of frames");
});

/** A NumPy array as its file. */
function npy(descr: string, shape: number[], data: ArrayBuffer): Uint8Array {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`.padEnd(117) + "\n";
  return Uint8Array.from([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length, 0, ...new TextEncoder().encode(header), ...new Uint8Array(data)]);
}

/** A ZIP archive, each file packed. */
function zip(files: Record<string, Uint8Array>): ArrayBuffer {
  const local: number[] = [];
  const central: number[] = [];
  const le = (n: number, size: number) => Array.from({ length: size }, (_, i) => (n >>> (8 * i)) & 255);
  for (const [name, content] of Object.entries(files)) {
    const packed = deflateRawSync(content);
    const common = [...le(20, 2), ...le(0, 2), ...le(8, 2), ...le(0, 8), ...le(packed.length, 4), ...le(content.length, 4), ...le(name.length, 2), ...le(0, 2)];
    central.push(...le(0x02014b50, 4), ...le(20, 2), ...common, ...le(0, 10), ...le(local.length, 4), ...new TextEncoder().encode(name));
    local.push(...le(0x04034b50, 4), ...common, ...new TextEncoder().encode(name), ...packed);
  }
  const end = [...le(0x06054b50, 4), ...le(0, 4), ...le(Object.keys(files).length, 2), ...le(Object.keys(files).length, 2), ...le(central.length, 4), ...le(local.length, 4), 0, 0];
  return Uint8Array.from([...local, ...central, ...end]).buffer;
}

test("npz: clips by their offsets, names of classes, names of joints", async () => {
  const x = npy("<f4", [3, 2, 3], Float32Array.from([1, 2, 3, NaN, 0, 0, 4, 5, 6, 7, 8, 9, 1, 1, 1, 2, 2, 2]).buffer);
  const off = npy("<i8", [3], BigInt64Array.from([0n, 1n, 3n]).buffer);
  const y = npy("<i8", [2], BigInt64Array.from([1n, 0n]).buffer);
  const classes = npy("<U4", [2], Uint32Array.from(Array.from("pushwave", (c) => c.charCodeAt(0))).buffer);
  const pickled = npy("|O", [1], new ArrayBuffer(8));
  const read = await readNpz(zip({ "x.npy": x, "off.npy": off, "y.npy": y, "classes.npy": classes, "extra.npy": pickled }));
  expect(read.clips.map((c) => [c.name, c.frames.length])).toEqual([["clip 1: wave", 1], ["clip 2: push", 2]]);
  expect(read.clips[0]!.frames[0]).toEqual([[1, 2, 3], null]);
  expect(readNpy(npy("<f8", [1, 1, 2], Float64Array.from([1, 2]).buffer).slice().buffer).clips[0]!.frames).toEqual([[[1, 2]]]);
  await expect(readNpz(new ArrayBuffer(100))).rejects.toThrow("no archive of arrays");
  await expect(readNpz(zip({ "a.npy": off }))).rejects.toThrow("Expected an array x");
});

test("a file of another kind is refused by name", async () => {
  await expect(readFile(new File(["x"], "notes.txt"))).rejects.toThrow(NotReadable);
  await expect(readFile(new File(["[[[1,2,3]],[[1,2,3],[1,2,3]]]"], "uneven.json"))).rejects.toThrow("not every frame has 1 joints");
  expect((await readFile(new File(["[[[1,2,3]]]"], "clip.JSON"))).clips.length).toBe(1);
});

const own = { joints: 2, joint_names: ["head", "left hand"], table: [[0], [1]] };
const other = { joints: 3, joint_names: ["nose", "left ear", "left hand"], table: [[0, 1], [2]] };
const recording = { format: "", clips: [{ name: "", frames: [[[0, 2000, 0], [0, 1000, 0], [500, 0, 100]]] }], names: null, hz: null };

test("layouts are offered by their number of joints, and the table is the layout's or the names'", () => {
  expect(candidates(recording, { own, other })).toEqual(["other"]);
  expect(tableOf(recording, other, own)).toEqual([[0, 1], [2]]);
  expect(tableOf({ ...recording, names: ["LeftHand", "x", "Head"] }, null, own)).toEqual([[2], [0]]);
});

test("joints are means, millimetres become metres, and cameras' y is turned up", () => {
  const axes = "y down, as cameras have it";
  expect(convert(recording.clips[0]!.frames, { table: [[0, 1], [2], []], unit: "mm", axes })).toEqual([[[0, -1.5, 0], [-0.5, 0, 0.1], null]]);
  expect(convert([[[1, 2, 3]]], { table: [[0]], unit: "m", axes: "z up" })).toEqual([[[1, 3, -2]]]);
  expect(convert([[null]], { table: [[0]], unit: "m", axes })).toEqual([[null]]);
});

test("pixels are scaled by the trunk", () => {
  const frames = [[[0, 0], [0, 100], [0, 150], [0, 200]]];
  const scaled = convert(frames, { table: [[0], [1], [2], [3]], unit: "px", axes: "y down, as cameras have it" });
  expect(scaled[0]![1]![1]! - scaled[0]![3]![1]!).toBeCloseTo(0.42);
});

test("a table of numbers is read by its header, or in its order", () => {
  expect(table("b,a\n1,2\n", ["a", "b"])).toEqual([[2, 1]]);
  expect(table("1,2\n3,4\n", ["a", "b"])).toEqual([[1, 2], [3, 4]]);
  expect(() => table("a,b\n1,x\n", ["a", "b"])).toThrow('Row 1: expected a number for b, got "x"');
  expect(() => table("a,b\n", ["a", "b"])).toThrow("no rows");
});

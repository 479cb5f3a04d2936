/** NumPy's files: `.npy`, and `.npz`, a ZIP archive of them. Nothing pickled is read. */
import { NotReadable, type Frames, type Recording } from "../recording.ts";

interface Grid {
  shape: number[];
  values: number[] | string[];
}

export async function readNpz(bytes: ArrayBuffer): Promise<Recording> {
  const arrays = await archive(bytes);
  const x = arrays.get("x") ?? [...arrays.values()].find((a) => a.shape.length >= 3);
  if (x === undefined) throw new NotReadable("Expected an array x [frames, joints, 3].");
  const frames = asFrames(x);
  const off = arrays.get("off")?.values as number[] | undefined;
  const labels = arrays.get("y")?.values;
  const classes = arrays.get("classes")?.values as string[] | undefined;
  const bounds = off ?? [0, frames.length];
  const clips = bounds.slice(1).map((end, i) => {
    const label = labels?.[i];
    const told = typeof label === "number" ? classes?.[label] : label;
    return { name: told === undefined ? `clip ${i + 1}` : `clip ${i + 1}: ${told}`, frames: frames.slice(bounds[i], end) };
  });
  const hz = arrays.get("hz")?.values[0];
  const names = (arrays.get("joint_names")?.values as string[] | undefined) ?? null;
  return { format: "NumPy arrays", clips, names, hz: typeof hz === "number" ? hz : null };
}

export function readNpy(bytes: ArrayBuffer): Recording {
  return { format: "a NumPy array", clips: [{ name: "clip 1", frames: asFrames(grid(new Uint8Array(bytes))) }], names: null, hz: null };
}

function asFrames({ shape, values }: Grid): Frames {
  const dims = shape.at(-1)!;
  if (shape.length < 3 || shape.length > 4 || dims < 2 || dims > 4 || typeof values[0] === "string") {
    throw new NotReadable(`Expected frames × joints × 3, got an array of ${shape.join(" × ")}.`);
  }
  const joints = shape.at(-2)!;
  const step = shape.slice(1).reduce((a, b) => a * b, 1);
  return Array.from({ length: shape[0]! }, (_, t) =>
    Array.from({ length: joints }, (_, j) => {
      const place = (values as number[]).slice(t * step + j * dims, t * step + j * dims + Math.min(3, dims));
      return place.every((v) => Number.isFinite(v)) ? place : null;
    }),
  );
}

async function archive(bytes: ArrayBuffer): Promise<Map<string, Grid>> {
  const view = new DataView(bytes);
  const arrays = new Map<string, Grid>();
  let end = bytes.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new NotReadable("The file ends in .npz, but it is no archive of arrays.");
  let at = view.getUint32(end + 16, true);
  for (let n = view.getUint16(end + 10, true); n > 0; n--) {
    const [method, size, nameLength, extra, comment, local] = [
      view.getUint16(at + 10, true), view.getUint32(at + 20, true), view.getUint16(at + 28, true),
      view.getUint16(at + 30, true), view.getUint16(at + 32, true), view.getUint32(at + 42, true),
    ]; // prettier-ignore
    const name = new TextDecoder().decode(new Uint8Array(bytes, at + 46, nameLength)).replace(/\.npy$/, "");
    const from = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const packed = new Uint8Array(bytes, from, size);
    at += 46 + nameLength + extra + comment;
    try {
      arrays.set(name, grid(method === 0 ? packed : await inflated(packed)));
    } catch (error) {
      if (name === "x" || !(error instanceof NotReadable)) throw error; // what the page does not need may be of any kind
    }
  }
  return arrays;
}

async function inflated(packed: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function grid(bytes: Uint8Array): Grid {
  if (bytes[0] !== 0x93 || String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") throw new NotReadable("Expected a NumPy array.");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const long = bytes[6]! > 1;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const from = (long ? 12 : 10) + length;
  const header = new TextDecoder("latin1").decode(bytes.subarray(long ? 12 : 10, from));
  const type = /'descr':\s*'([<>|=]?)([a-zA-Z])(\d+)'/.exec(header);
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((s) => s.trim() !== "").map(Number);
  if (type === null || type[1] === ">" || /'fortran_order':\s*True/.test(header)) throw new NotReadable("An array of a kind that is not read.");
  const count = shape.reduce((a, b) => a * b, 1);
  const [kind, size] = [type[2]!, Number(type[3])];
  if (kind === "U") {
    const text = (i: number) => {
      let out = "";
      for (let k = 0; k < size; k++) out += String.fromCodePoint(view.getUint32(from + 4 * (i * size + k), true));
      return out.replace(/\0+$/, "");
    };
    return { shape, values: Array.from({ length: count }, (_, i) => text(i)) };
  }
  const readers: Record<string, (at: number) => number> = {
    f4: (a) => view.getFloat32(a, true), f8: (a) => view.getFloat64(a, true), i8: (a) => Number(view.getBigInt64(a, true)),
    i4: (a) => view.getInt32(a, true), i2: (a) => view.getInt16(a, true), u1: (a) => view.getUint8(a), i1: (a) => view.getInt8(a),
    b1: (a) => view.getUint8(a), u2: (a) => view.getUint16(a, true), u4: (a) => view.getUint32(a, true),
  }; // prettier-ignore
  const read = readers[`${kind}${size}`];
  if (read === undefined) throw new NotReadable(`An array of ${kind}${size}, which is not read here.`);
  return { shape, values: Array.from({ length: count }, (_, i) => read(from + i * size)) };
}

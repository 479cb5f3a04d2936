/** A recorded motion as a file has it, and how it becomes what a model reads. */
import type { LayoutInfo } from "../service.ts";

/** A joint's place, or null where it was not seen. */
export type Joint = readonly number[] | null;
/** [T][J] */
export type Frames = readonly (readonly Joint[])[];

/** What a file holds: one clip or several of one kind. */
export interface Recording {
  format: string;
  clips: { name: string; frames: Frames }[];
  /** the joints' names, where the file tells them */
  names: string[] | null;
  /** frames a second, where the file tells it */
  hz: number | null;
}

export class NotReadable extends Error {}

export type Unit = "m" | "cm" | "mm" | "px";

export const AXES = {
  "y up, as the model has it": [1, 2, 3],
  "y down, as cameras have it": [-1, -2, 3],
  "z up": [1, 3, -2],
} as const satisfies Record<string, readonly [number, number, number]>;

export type Axes = keyof typeof AXES;

/** How a recording is to be read: which of its joints each of the model's is the mean of, its unit and axes. */
export interface Reading {
  table: readonly (readonly number[])[];
  unit: Unit;
  axes: Axes;
}

const METRES: Record<Exclude<Unit, "px">, number> = { m: 1, cm: 0.01, mm: 0.001 };
const TRUNK = 0.42; // metres between hips and shoulders that a body in pixels is given

/** Write a joint's name as the layouts do: "LeftWrist" and "left_wrist" are "left wrist". */
export function plainName(name: string): string {
  return name
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replace(/[_\-.]+/g, " ")
    .trim()
    .toLowerCase()
    .replace(/center/g, "centre")
    .replace(/^l /, "left ")
    .replace(/^r /, "right ");
}

/** Return the layouts that a recording may be in: those with as many joints, the one whose names the file has first. */
export function candidates(recording: Recording, layouts: Record<string, LayoutInfo>): string[] {
  const count = recording.clips[0]?.frames[0]?.length ?? 0;
  const found = Object.keys(layouts).filter((name) => layouts[name]!.joints === count);
  const names = recording.names?.map(plainName);
  if (names) found.sort((a, b) => shared(layouts[b]!, names) - shared(layouts[a]!, names));
  return found;
}

function shared(layout: LayoutInfo, names: readonly string[]): number {
  return layout.joint_names.filter((name, i) => names[i] === name).length;
}

/** Return which of the file's joints each of the model's joints is the mean of, by a layout or by the joints' names. */
export function tableOf(recording: Recording, layout: LayoutInfo | null, own: LayoutInfo): number[][] {
  if (layout?.table) return layout.table.map((joints) => joints.slice());
  const names = recording.names?.map(plainName);
  if (names) return own.joint_names.map((name) => names.flatMap((n, i) => (n === name ? [i] : [])));
  const count = recording.clips[0]?.frames[0]?.length ?? 0;
  return own.joint_names.map((_, i) => (i < count ? [i] : []));
}

/** Return frames in the model's joints and in metres. */
export function convert(frames: Frames, reading: Reading): (number[] | null)[][] {
  const [a, b, c] = AXES[reading.axes];
  const scale = reading.unit === "px" ? pixels(frames, reading.table) : METRES[reading.unit];
  const pick = (p: readonly number[], axis: number) => Math.sign(axis) * (p[Math.abs(axis) - 1] ?? 0) * scale;
  return frames.map((frame) =>
    reading.table.map((joints) => {
      const seen = joints.flatMap((j) => (frame[j] ? [frame[j]] : []));
      if (seen.length === 0) return null;
      const sum = [0, 0, 0];
      for (const p of seen) [a, b, c].forEach((axis, i) => (sum[i]! += pick(p, axis) / seen.length));
      return sum;
    }),
  );
}

/** Return metres a pixel, by the middle of the trunk's lengths: the joints 1 and 3 of the model's are shoulder and hip centre in `utd20`. */
function pixels(frames: Frames, table: Reading["table"]): number {
  const lengths = frames.flatMap((frame) => {
    const [top, low] = [1, 3].map((joint) => frame[table[joint]?.[0] ?? -1]);
    return top && low ? [Math.hypot(top[0]! - low[0]!, top[1]! - low[1]!)] : [];
  });
  lengths.sort((x, y) => x - y);
  return TRUNK / (lengths[lengths.length >> 1] || 100);
}

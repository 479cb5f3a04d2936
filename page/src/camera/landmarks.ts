/** MediaPipe's landmarks as frames: as the service reads them, and as the page draws them. */
import { convert } from "../action/recording.ts";

/** A landmark in metres from the middle of the hips: x to the right of the picture, y down, z away from the camera. */
export interface Landmark {
  x: number;
  y: number;
  z: number;
  /** how likely it is in the picture and not hidden, 0 to 1 */
  visibility?: number;
}

/** The order of joints that landmarks are sent in, and where the model's x, y and z lie in them. */
export const SENT_AS = { layout: "mediapipe33", axes: "-x -y z" };
const VISIBLE = 0.5; // a landmark counts as seen from here on: the least of MediaPipe's own thresholds, not tuned

type Place = [number, number, number] | null;

/** What is found in a picture: landmarks in metres from the hips, and the same as shares of the picture's width and height. */
export interface Found {
  world: readonly Landmark[];
  picture: readonly Landmark[];
}

const SHOULDERS = [11, 12];
const HIPS = [23, 24];
const STEADY = 0.9; // of the scale, kept from picture to picture: a body does not change its size

/**
 * Makes frames of what is found. World landmarks are measured from the hips, so a step aside or a jump is not in them; where the hips are in
 * the picture says it, in metres by the trunk's length. How far away a body is is not told.
 */
export class Placing {
  private scale: number | null = null;

  /** Return a frame [33] in metres, x to the right of the picture, y down; null for a landmark that is not seen. */
  frame({ world, picture }: Found, width: number, height: number): Place[] {
    const pixels = trunk(picture, width, height);
    if (pixels > 1) {
      const now = trunk(world, 1, 1) / pixels; // metres a pixel
      this.scale = this.scale === null ? now : STEADY * this.scale + (1 - STEADY) * now;
    }
    const hips = middle(picture, HIPS);
    const [x, y] = [(hips.x - 0.5) * width, (hips.y - 0.5) * height].map((p) => p * (this.scale ?? 0)) as [number, number];
    return world.map((at) => ((at.visibility ?? 1) < VISIBLE ? null : [at.x + x, at.y + y, at.z]));
  }
}

/** The trunk's length across the picture. */
function trunk(landmarks: readonly Landmark[], width: number, height: number): number {
  const [top, low] = [middle(landmarks, SHOULDERS), middle(landmarks, HIPS)];
  return Math.hypot((top.x - low.x) * width, (top.y - low.y) * height);
}

function middle(landmarks: readonly Landmark[], which: readonly number[]): { x: number; y: number } {
  const mean = (axis: "x" | "y") => which.reduce((sum, i) => sum + landmarks[i]![axis], 0) / which.length;
  return { x: mean("x"), y: mean("y") };
}

/** Return a frame in the model's own joints and axes, by its table for the landmarks. */
export function shownOf(frame: readonly Place[], table: readonly (readonly number[])[]): (number[] | null)[] {
  return convert([frame], { table, unit: "m", axes: "y down, as cameras have it" })[0]!;
}

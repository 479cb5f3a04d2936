/** How much what was read counts for an answer, from the gradient that the service tells (docs/explain.md). */

type Place = readonly number[] | null;

/** A joint or a character, and how much it counts: more than 0 for the answer, less than 0 against it. */
export interface Weighed {
  index: number;
  value: number;
}

/** Steps that the service explains at once. */
export const MOST = 512;

/**
 * Return how much each joint counts in each frame, [T][J]: the gradient [T][P][J][3] of the first person's joints times their way from where
 * each is on average in these frames. A joint that is not seen stands where it was seen last, as for the model.
 */
export function byWay(gradient: readonly (readonly (readonly (readonly number[])[])[])[], frames: readonly (readonly Place[])[]): number[][] {
  const joints = frames[0]?.length ?? 0;
  const held = frames.map((frame) => frame.slice());
  const sums = Array.from({ length: joints }, () => [0, 0, 0, 0]);
  held.forEach((frame, t) => {
    for (let j = 0; j < joints; j++) {
      frame[j] ??= held[t - 1]?.[j] ?? null;
      const place = frame[j];
      if (place) [...place, 1].forEach((v, axis) => (sums[j]![axis]! += v));
    }
  });
  return held.map((frame, t) =>
    frame.map((place, j) => {
      const slope = gradient[t]?.[0]?.[j];
      if (!place || !slope) return 0;
      const count = sums[j]![3]!;
      return place.reduce((total, v, axis) => total + slope[axis]! * (v - sums[j]![axis]! / count), 0);
    }),
  );
}

/** Return a number's grade beside the largest there is: −7 to 7, 0 for what counts next to nothing. */
export function grade(value: number, most: number): number {
  if (most <= 0) return 0;
  const size = Math.min(7, Math.max(0, Math.ceil((7 * Math.abs(value)) / most - 0.35)));
  return value < 0 ? 0 - size : size;
}

/** Return the largest size in a list of numbers. */
export function largest(values: readonly number[]): number {
  return values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
}

/** Return the sums over all frames, joint by joint. */
export function overTime(cells: readonly (readonly number[])[]): number[] {
  return (cells[0] ?? []).map((_, j) => cells.reduce((sum, row) => sum + row[j]!, 0));
}

const SLIGHT = 0.01; // of the largest: what counts less is not told in words

/** Return those that count most for the answer, and those that count most against it. */
export function foremost(values: readonly number[], count: number): { given: Weighed[]; against: Weighed[] } {
  const least = SLIGHT * largest(values);
  const all = values.map((value, index) => ({ index, value })).filter((w) => Math.abs(w.value) >= least);
  const given = all.filter((w) => w.value > 0).sort((a, b) => b.value - a.value);
  const against = all.filter((w) => w.value < 0).sort((a, b) => a.value - b.value);
  return { given: given.slice(0, count), against: against.slice(0, count) };
}

export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** Joints that were not seen hold their last place, as in the service (frames/joints.py). */

/** Frames [P][J][3] without gaps, and which joints [P][J] hold their place in each. */
export interface Held {
  frames: Float32Array[];
  lost: boolean[][];
}

/**
 * Fill joints that are NaN with their last place, starting from the frame before. A joint of a present person that was never seen stands
 * where the mean of the person's first seen joints was; a person of whom nothing is seen is absent, and starts anew when coming back.
 */
export function hold(sent: readonly Float32Array[], before: Float32Array, persons: number): Held {
  const size = before.length / persons;
  const frames = sent.map((frame) => frame.slice());
  const lost = sent.map((frame) => Array.from({ length: frame.length / 3 }, (_, j) => Number.isNaN(frame[3 * j]! + frame[3 * j + 1]! + frame[3 * j + 2]!)));
  for (let p = 0; p < persons; p++) {
    const earlier = before.subarray(p * size, (p + 1) * size);
    let held: Float32Array | null = earlier.some((v) => v !== 0) ? earlier.slice() : null;
    frames.forEach((frame, t) => {
      const person = frame.subarray(p * size, (p + 1) * size);
      const gone = lost[t]!.slice((p * size) / 3, ((p + 1) * size) / 3);
      if (!person.some((v, i) => !gone[Math.floor(i / 3)] && v !== 0)) {
        person.fill(0);
        held = null;
        return;
      }
      held ??= means(person, gone);
      for (let j = 0; j < gone.length; j++) {
        const place = (gone[j] ? held : person).slice(3 * j, 3 * j + 3);
        person.set(place, 3 * j);
        held.set(place, 3 * j);
      }
    });
  }
  return { frames, lost };
}

/** Return a body whose joints are all at the mean of those that are seen. */
function means(person: Float32Array, gone: readonly boolean[]): Float32Array {
  const sum = [0, 0, 0];
  const seen = gone.filter((g) => !g).length;
  person.forEach((v, i) => {
    if (!gone[Math.floor(i / 3)]) sum[i % 3]! += v / seen;
  });
  return Float32Array.from(person, (_, i) => sum[i % 3]!);
}

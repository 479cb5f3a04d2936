/** Frames of one rate as frames of another, causally and in pieces, as the service does (frames/rate.py). */

/** A whole number over a whole number, in lowest terms. */
export type Fraction = readonly [number, number];

/** What resampling leaves over: the last frame as it was sent, and where between frames the next one falls. */
export interface Carry {
  hz: number;
  frame: Float32Array;
  phase: Fraction;
}

const MOST = 1000; // of a rate's denominator

/** Return the fraction nearest to a rate. */
export function fraction(value: number): Fraction {
  let best: Fraction = [Math.round(value), 1];
  for (let d = 2; d <= MOST; d++) {
    const n = Math.round(value * d);
    if (Math.abs(value - n / d) < Math.abs(value - best[0] / best[1]) - 1e-12) best = [n, d];
  }
  return best;
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}

function lowest(n: number, d: number): Fraction {
  const by = divisor(n, d) || 1;
  return [n / by, d / by];
}

/** Return the sent frames for one frame of the model's. */
export function stride(hz: number, own: number): Fraction {
  const [[a, b], [c, d]] = [fraction(hz), fraction(own)];
  return lowest(a * d, b * c);
}

/** Return frames [P][J][3] at the model's rate, by straight lines between neighbours, what is left over, and the sent frame at or after each. */
export function resample(sent: readonly Float32Array[], hz: number, own: number, carry: Carry | null, persons: number): { frames: Float32Array[]; carry: Carry; after: number[] } {
  const step = stride(hz, own);
  const phase: Fraction = carry === null ? [0, 1] : carry.phase;
  const all = carry === null ? sent : [carry.frame, ...sent];
  const last = all.length - 1;
  const unit = (step[1] * phase[1]) / divisor(step[1], phase[1]);
  const [by, from] = [(step[0] * unit) / step[1], (phase[0] * unit) / phase[1]];
  const count = Math.max(0, Math.floor((last * unit - from) / by) + 1);
  const frames: Float32Array[] = [];
  const after: number[] = [];
  for (let i = 0; i < count; i++) {
    const at = from + by * i;
    const index = Math.floor(at / unit);
    const share = (at % unit) / unit;
    frames.push(between(all[index]!, all[Math.min(index + 1, last)]!, share, persons));
    after.push(Math.min(Math.max(0, Math.ceil(at / unit) - (carry === null ? 0 : 1)), sent.length - 1));
  }
  const left = from + count * by - last * unit;
  return { frames, carry: { hz, frame: all[last]!, phase: lowest(left, unit) }, after };
}

/** A person who comes or goes between two frames takes the later frame's place. */
function between(first: Float32Array, second: Float32Array, share: number, persons: number): Float32Array {
  const size = first.length / persons;
  const made = new Float32Array(first.length);
  for (let p = 0; p < persons; p++) {
    const [a, b] = [first, second].map((frame) => frame.subarray(p * size, (p + 1) * size)) as [Float32Array, Float32Array];
    const both = a.some((v) => v !== 0) && b.some((v) => v !== 0);
    for (let i = 0; i < size; i++) made[p * size + i] = both ? a[i]! + (b[i]! - a[i]!) * share : share > 0 ? b[i]! : a[i]!;
  }
  return made;
}

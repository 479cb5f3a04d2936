/** Which neurons follow something, and where the network was in a like state. Steps that are not kept count nowhere. */
import type { Trace } from "./trace.ts";

export interface Found {
  neuron: number;
  /** the measure, as its search says */
  value: number;
}

/**
 * Return the neurons that are higher in a stretch than outside, best first. The measure: of all pairs of a step inside and a step outside,
 * the share in which the neuron is higher inside, half where both are alike (the area under the curve of a detector).
 */
export function higherInside(trace: Trace, from: number, to: number, count: number): Found[] {
  const first = trace.dropped;
  const steps = trace.length - first;
  const inside = Math.min(to, trace.length) - Math.max(from, first);
  if (inside <= 0 || inside >= steps) return [];
  const order = new Uint32Array(steps);
  const found: Found[] = [];
  for (let neuron = 0; neuron < trace.size; neuron++) {
    const row = trace.row(neuron);
    if (trace.most[neuron] === 0) continue;
    for (let t = 0; t < steps; t++) order[t] = t;
    order.sort((a, b) => row[a]! - row[b]!);
    let ranks = 0;
    for (let i = 0; i < steps; ) {
      let j = i;
      let marked = 0;
      for (; j < steps && row[order[j]!] === row[order[i]!]; j++) {
        const step = order[j]! + first;
        if (step >= from && step < to) marked++;
      }
      ranks += marked * ((i + 1 + j) / 2); // the mean rank of those that are alike
      i = j;
    }
    found.push({ neuron, value: (ranks - (inside * (inside + 1)) / 2) / (inside * (steps - inside)) });
  }
  return found.sort((a, b) => b.value - a.value).slice(0, count);
}

/** Return the neurons whose values follow a property, by the size of Pearson's correlation over the kept steps; NaN in the property: left out. */
export function following(trace: Trace, property: ArrayLike<number>, count: number): Found[] {
  const steps: number[] = [];
  for (let t = trace.dropped; t < Math.min(trace.length, property.length); t++) if (Number.isFinite(property[t]!)) steps.push(t);
  const n = steps.length;
  const mean = steps.reduce((sum, t) => sum + property[t]!, 0) / n;
  const centred = steps.map((t) => property[t]! - mean);
  const spread = Math.sqrt(centred.reduce((sum, v) => sum + v * v, 0));
  if (n < 3 || spread === 0) return [];
  const [sum, square, cross] = [new Float64Array(trace.size), new Float64Array(trace.size), new Float64Array(trace.size)];
  steps.forEach((t, k) => {
    const column = trace.at(t)!;
    const p = centred[k]!;
    for (let i = 0; i < trace.size; i++) {
      const v = column[i]!;
      sum[i]! += v;
      square[i]! += v * v;
      cross[i]! += v * p;
    }
  });
  const found: Found[] = [];
  for (let i = 0; i < trace.size; i++) {
    const own = Math.sqrt(Math.max(0, square[i]! - (sum[i]! * sum[i]!) / n));
    if (own > 1e-6) found.push({ neuron: i, value: cross[i]! / (own * spread) });
  }
  return found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, count);
}

/** Return how large the largest of so many correlations would be by chance, were all steps independent of each other. */
export function byChance(neurons: number, steps: number): number {
  return Math.min(1, Math.sqrt((2 * Math.log(2 * neurons)) / Math.max(1, steps)));
}

/**
 * Return where else the network was in a state like the mean of a stretch, the likest first: steps at least `apart` from each other and from
 * the stretch. The measure: the cosine between the states, each neuron by its own largest value.
 */
export function alike(trace: Trace, from: number, to: number, count: number, apart = 8): { step: number; value: number }[] {
  const scale = trace.most.map((most) => (most > 0 ? 1 / most : 0));
  const mean = new Float64Array(trace.size);
  for (let t = Math.max(from, trace.dropped); t < Math.min(to, trace.length); t++) {
    const column = trace.at(t)!;
    for (let i = 0; i < mean.length; i++) mean[i]! += column[i]! * scale[i]!;
  }
  const all: { step: number; value: number }[] = [];
  for (let t = trace.dropped; t < trace.length; t++) {
    if (t >= from - apart && t < to + apart) continue;
    const column = trace.at(t)!;
    let [dot, a, b] = [0, 0, 0];
    for (let i = 0; i < mean.length; i++) {
      const v = column[i]! * scale[i]!;
      dot += v * mean[i]!;
      a += v * v;
      b += mean[i]! * mean[i]!;
    }
    all.push({ step: t, value: a > 0 && b > 0 ? dot / Math.sqrt(a * b) : 0 });
  }
  all.sort((x, y) => y.value - x.value);
  const found: typeof all = [];
  for (const one of all) {
    if (found.length === count) break;
    if (found.every((f) => Math.abs(f.step - one.step) >= apart)) found.push(one);
  }
  return found;
}

/**
 * Return how far two states are from each other in a stretch of neurons: the length of their difference beside the root of both lengths'
 * squares; 0 is the same, 1 is as far as two states that have nothing in common.
 */
export function distance(a: Float32Array, b: Float32Array, from: number, size: number): number {
  let [apart, both] = [0, 0];
  for (let i = from; i < from + size; i++) {
    apart += (a[i]! - b[i]!) ** 2;
    both += a[i]! ** 2 + b[i]! ** 2;
  }
  return both === 0 ? 0 : Math.sqrt(apart / both);
}

/** Return where two streams part and where they meet again: the first step beyond `near`, and the first behind it from which on all are within. */
export function parting(distances: readonly number[], near: number): { parted: number | null; met: number | null } {
  const parted = distances.findIndex((d) => d > near);
  if (parted < 0) return { parted: null, met: null };
  let met = distances.length;
  while (met > parted && distances[met - 1]! <= near) met--;
  return { parted, met: met < distances.length ? met : null };
}

/** Return how many entries at the end of two lists are the same. */
export function commonEnd(a: readonly unknown[], b: readonly unknown[]): number {
  let n = 0;
  while (n < Math.min(a.length, b.length) && a[a.length - 1 - n] === b[b.length - 1 - n]) n++;
  return n;
}

/** Prometheus' text format, as far as the page needs it. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** Read the samples of a scrape. */
export function readMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const [, name, labels, value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name === undefined || value === undefined || line.startsWith("#")) continue;
    const told: Record<string, string> = {};
    for (const [, key, quoted] of (labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) told[key!] = quoted!.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
    samples.push({ name, labels: told, value: value === "+Inf" ? Infinity : Number(value) });
  }
  return samples;
}

/** Return the sum of a metric over all its labels that are as asked. */
export function total(samples: readonly Sample[], name: string, labels: Record<string, string> = {}): number {
  return samples
    .filter((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v))
    .reduce((sum, s) => sum + s.value, 0);
}

/** Return a quantile of what a histogram counted between two scrapes, by straight lines within its buckets; null where it counted nothing. */
export function quantile(before: readonly Sample[], after: readonly Sample[], name: string, q: number, labels: Record<string, string> = {}): number | null {
  const bounds = [...new Set(after.filter((s) => s.name === `${name}_bucket`).map((s) => s.labels["le"]!))]
    .map((le) => ({ le, edge: le === "+Inf" ? Infinity : Number(le) }))
    .sort((a, b) => a.edge - b.edge);
  const counts = bounds.map(({ le }) => total(after, `${name}_bucket`, { ...labels, le }) - total(before, `${name}_bucket`, { ...labels, le }));
  const all = counts.at(-1) ?? 0;
  if (all <= 0) return null;
  const i = counts.findIndex((count) => count >= q * all);
  const [low, below] = i === 0 ? [0, 0] : [bounds[i - 1]!.edge, counts[i - 1]!];
  const high = bounds[i]!.edge;
  if (high === Infinity) return low;
  return low + ((q * all - below) / Math.max(1e-9, counts[i]! - below)) * (high - low);
}

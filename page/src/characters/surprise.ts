/** How surprised a model was by a character, and how that is shown. */

/** A character that might have come, with its probability. */
export interface Guess {
  char: string;
  p: number;
}

/** Bits from which on a character has the colour of that level; below the first it has none. */
export const LEVELS = [1, 2, 3, 4.5, 6, 8, 10] as const;

/** Return the surprise, in bits, at a character of that log-probability (nats). */
export function bits(logprob: number): number {
  return -logprob / Math.LN2;
}

/** Return the level of colour, 0 to 7, for a surprise in bits. */
export function level(surprise: number): number {
  let n = 0;
  while (n < LEVELS.length && surprise >= LEVELS[n]!) n++;
  return n;
}

/** Return the likeliest characters, best first, of probabilities over an alphabet. */
export function likeliest(p: ArrayLike<number>, alphabet: readonly string[], count: number): Guess[] {
  const order = Array.from({ length: p.length }, (_, i) => i).sort((a, b) => p[b]! - p[a]!);
  return order.slice(0, count).map((i) => ({ char: alphabet[i] ?? "?", p: p[i]! }));
}

/** Return a character as people can see it. */
export function visible(char: string): string {
  return char === " " ? "space" : char === "\n" ? "line end ↵" : char === "\t" ? "tab" : char;
}

export function percent(p: number): string {
  const n = 100 * p;
  return n >= 99.95 ? "100 %" : n >= 10 ? `${n.toFixed(0)} %` : n >= 0.1 ? `${n.toFixed(1)} %` : "< 0.1 %";
}

/** Cut a text into pieces of at most so many characters (code points). */
export function pieces(text: string, most: number): string[] {
  const all = Array.from(text);
  const out: string[] = [];
  for (let i = 0; i < all.length; i += most) out.push(all.slice(i, i + most).join(""));
  return out;
}

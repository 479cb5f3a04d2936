/** What the browser cannot do in the service's place, and what both do alike. */

/** Something is for the service alone; the message says what. */
export class NotHere extends Error {}

/** Throw where a sequence would be longer than its model was made for; null is as long as one likes. */
export function needRoom(position: number, most: number | null): void {
  if (most !== null && position > most) throw new NotHere(`The model was made for ${most} steps in a sequence, and this would be ${position}.`);
}

/** Return scores, which add up to 1. */
export function softmax(logits: Float32Array): number[] {
  const most = Math.max(...logits);
  const odds = Array.from(logits, (v) => Math.exp(v - most));
  const sum = odds.reduce((a, b) => a + b, 0);
  return odds.map((v) => v / sum);
}

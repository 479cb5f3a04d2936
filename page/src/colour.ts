/** The part of [0, 1] that a number is of the way from low to high. */
export function share(value: number, low: number, high: number): number {
  return high === low ? 0 : Math.min(1, Math.max(0, (value - low) / (high - low)));
}

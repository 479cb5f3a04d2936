/** When an answer became sure. */

export const OTHER = "other";

export interface Answer {
  label: string;
  score: number;
  /** the best class, also where the label is `other` */
  best: string;
}

/** Return the answer of one row of scores: `other` where the best is below the threshold. */
export function answer(scores: readonly number[], labels: readonly string[], below: number | null): Answer {
  let best = 0;
  for (let k = 1; k < scores.length; k++) if (scores[k]! > scores[best]!) best = k;
  const score = scores[best]!;
  return { label: below !== null && score < below ? OTHER : labels[best]!, score, best: labels[best]! };
}

/** Return since which index, from `from` on, the last answer has stood without a break; null where that is `other`. */
export function sureSince(answers: readonly Answer[], from: number, to: number): number | null {
  const label = answers[to]?.label;
  if (label === undefined || label === OTHER) return null;
  let at = to;
  while (at > from && answers[at - 1]!.label === label) at--;
  return at;
}

/** Return whether the answer at a motion's first frame is still that to what came before it. */
export function carriedOver(answers: readonly Answer[], from: number): boolean {
  return from > 0 && answers[from]?.label === answers[from - 1]?.label;
}

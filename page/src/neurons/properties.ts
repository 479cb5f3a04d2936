/** Properties of a text or a motion, step by step, that a neuron may follow. */

type Place = readonly number[] | null;

export interface Property {
  name: string;
  values: number[];
}

/** Return the properties of a text, character by character. */
export function ofText(chars: readonly string[]): Property[] {
  let column = 0;
  let word = 0;
  let open = false;
  const found: Record<string, number[]> = {};
  const tell = (name: string, value: number | boolean) => (found[name] ??= []).push(Number(value));
  for (const char of chars) {
    const quote = char === '"' || char === "“" || char === "”";
    if (quote) open = char === '"' ? !open : char === "“";
    const letter = /\p{L}/u.test(char);
    word = letter ? word + 1 : 0;
    tell("position in the line", column);
    tell("inside quotes", open || quote);
    tell("position in the word", word);
    tell("capital letter", letter && char !== char.toLowerCase());
    tell("space", char === " ");
    tell("vowel", /[aeiouàäéê]/i.test(char));
    tell("end of a line", char === "\n");
    tell("end of a sentence", /[.!?]/.test(char));
    tell("punctuation", /[.,;:!?—–-]/.test(char));
    column = char === "\n" ? 0 : column + 1;
  }
  return Object.entries(found).map(([name, values]) => ({ name, values }));
}

/** Return the properties of a motion, frame by frame, of joints by their names; those whose joints are not there are left out. */
export function ofMotion(frames: readonly (readonly Place[])[], names: readonly string[], hz: number): Property[] {
  const at = (frame: readonly Place[], name: string): Place => frame[names.indexOf(name)] ?? null;
  const apart = (a: Place, b: Place) => (a && b ? Math.hypot(...a.map((v, i) => v - b[i]!)) : NaN);
  const height = (joint: string, above: string) => (frame: readonly Place[]) => {
    const [a, b] = [at(frame, joint), at(frame, above)];
    return a && b ? a[1]! - b[1]! : NaN;
  };
  const base = names.includes("hip centre") ? "hip centre" : "spine base";
  const measures: Record<string, (frame: readonly Place[], t: number) => number> = {
    "height of the right hand": height("right hand", base),
    "height of the left hand": height("left hand", base),
    "height of the hips": (frame) => at(frame, base)?.[1] ?? NaN,
    "between the hands": (frame) => apart(at(frame, "left hand"), at(frame, "right hand")),
    "reach of the right hand": (frame) => apart(at(frame, "right hand"), at(frame, "right shoulder")),
    "right hand to the side": (frame) => {
      const [hand, hips] = [at(frame, "right hand"), at(frame, base)];
      return hand && hips ? hand[0]! - hips[0]! : NaN;
    },
    "speed of the right hand": (frame, t) => (t === 0 ? NaN : apart(at(frame, "right hand"), at(frames[t - 1]!, "right hand")) * hz),
    "speed of the body": (frame, t) => {
      if (t === 0) return NaN;
      const moved = frame.map((joint, j) => apart(joint, frames[t - 1]![j] ?? null)).filter((v) => Number.isFinite(v));
      return (moved.reduce((sum, v) => sum + v, 0) / moved.length) * hz;
    },
  };
  return Object.entries(measures)
    .map(([name, measure]) => ({ name, values: frames.map(measure) }))
    .filter(({ values }) => values.some((v) => Number.isFinite(v)));
}

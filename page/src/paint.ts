/** The colours of the style sheet, for what is drawn on a canvas. */
export function colours(...names: string[]): Record<string, string> {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Red, green and blue of a colour as the built style sheet has it, #rgb or #rrggbb. */
export function channels(colour: string): [number, number, number] {
  const digits = colour.slice(1);
  const wide = digits.length === 3 ? Array.from(digits, (d) => d + d).join("") : digits;
  return [0, 2, 4].map((i) => parseInt(wide.slice(i, i + 2), 16)) as [number, number, number];
}

/** Okabe and Ito's colours, told apart by the colour-blind; made lighter or darker where the ground asks for it. */
export const SERIES = {
  light: ["#0072b2", "#b3500a", "#00795a", "#9c4478", "#7a6200", "#1f7fa8", "#000000"],
  dark: ["#5fb4e6", "#f0a063", "#3fd0a4", "#e79cc6", "#e8d94a", "#8fd0f5", "#ffffff"],
};

export const DASHES = [[], [8, 4], [2, 3], [12, 4, 2, 4], [5, 2], [1, 4], [16, 4]];

export function dark(): boolean {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function series(index: number): string {
  const all = dark() ? SERIES.dark : SERIES.light;
  return all[index % all.length]!;
}

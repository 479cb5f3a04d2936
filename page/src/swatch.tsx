/** A short piece of a line, for the key of a plot. */
export function Swatch({ line, dash }: { line: string; dash: number[] }) {
  return (
    <svg width="26" height="8" aria-hidden="true">
      <line x1="0" y1="4" x2="26" y2="4" stroke={line} stroke-width="3" stroke-dasharray={dash.join(" ")} />
    </svg>
  );
}

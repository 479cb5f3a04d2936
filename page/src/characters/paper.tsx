/** The text, each character in the colour of its surprise; one of them can be pointed at, by mouse or arrow keys. */
import { memo } from "preact/compat";
import { useEffect, useRef } from "preact/hooks";
import { bits, level } from "./surprise.ts";
import type { Sign } from "./writing.ts";

const CHUNK = 256; // characters that are rendered together

interface ChunkProps {
  signs: Sign[];
  from: number;
  to: number;
  chosen: number | null;
  colour: (sign: Sign, index: number) => string;
  turn: number;
  marked: readonly [number, number] | null;
}

function chunk({ signs, from, to, chosen, colour, marked }: ChunkProps) {
  const spans = [];
  for (let i = from; i < to; i++) {
    const sign = signs[i]!;
    const classes = [colour(sign, i), sign.drawn ? "drawn" : "", sign.char === "\n" ? "end" : "", i === chosen ? "chosen" : "", marked && i >= marked[0] && i < marked[1] ? "marked" : ""];
    spans.push(
      <span key={i} data-i={i} class={classes.join(" ").trim()}>
        {sign.char}
      </span>,
    );
  }
  return <>{spans}</>;
}

const Chunk = memo(
  chunk,
  (a, b) => a.to === b.to && a.chosen === b.chosen && a.colour === b.colour && a.signs === b.signs && a.turn === b.turn && a.marked === b.marked,
);

export const bySurprise = (sign: Sign): string => (sign.logprob === null ? "s unknown" : `s s${level(bits(sign.logprob))}`);

/** The character beside a place between two lines; null where there is none within a line's height. */
function nearest(x: number, y: number): HTMLElement | null {
  const node = document.caretPositionFromPoint(x, y)?.offsetNode;
  const found = (node instanceof HTMLElement ? node : node?.parentElement)?.closest<HTMLElement>("[data-i]") ?? null;
  if (found === null) return null;
  const { top, bottom, height } = found.getBoundingClientRect();
  return y > top - height && y < bottom + height ? found : null;
}

interface PaperProps {
  signs: Sign[];
  before: number;
  chosen: number | null;
  choose: (index: number | null) => void;
  label: string;
  colour?: (sign: Sign, index: number) => string;
  /** a number that changes when all colours do */
  turn?: number;
  /** marks a stretch by dragging or with shift and arrows, where given */
  mark?: (from: number, to: number) => void;
  marked?: readonly [number, number] | null;
  empty: string;
}

export function Paper({ signs, before, chosen, choose, label, colour = bySurprise, turn = 0, mark, marked = null, empty }: PaperProps) {
  const box = useRef<HTMLDivElement>(null);
  const start = useRef<number | null>(null);
  const pinned = useRef(true);
  useEffect(() => {
    if (pinned.current) box.current!.scrollTop = box.current!.scrollHeight;
  }, [signs.length]);
  const under = (event: PointerEvent): number | null => {
    const found = (event.target as HTMLElement).closest<HTMLElement>("[data-i]") ?? nearest(event.clientX, event.clientY);
    return found === null ? null : Number(found.dataset["i"]);
  };
  const move = (event: PointerEvent) => {
    const at = under(event);
    if (at === null) return;
    choose(at);
    if (start.current !== null && mark && event.buttons === 1) mark(Math.min(start.current, at), Math.max(start.current, at) + 1);
  };
  const keys = (event: KeyboardEvent) => {
    const last = signs.length - 1;
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -20, ArrowDown: 20, PageUp: -200, PageDown: 200, Home: -1e9, End: 1e9 };
    const step = steps[event.key];
    if (event.key === "Escape") choose(null);
    if (step === undefined || last < 0) return;
    event.preventDefault();
    const at = Math.min(last, Math.max(0, (chosen ?? last + 1) + step));
    if (mark && event.shiftKey) {
      start.current ??= chosen ?? at;
      mark(Math.min(start.current, at), Math.max(start.current, at) + 1);
    } else start.current = null;
    choose(at);
    box.current!.querySelector(`[data-i="${at}"]`)?.scrollIntoView({ block: "nearest" });
  };
  const chunks = [];
  for (let from = 0; from < signs.length; from += CHUNK) {
    const to = Math.min(signs.length, from + CHUNK);
    const inside = chosen !== null && chosen >= from && chosen < to ? chosen : null;
    chunks.push(<Chunk key={from} signs={signs} from={from} to={to} chosen={inside} colour={colour} turn={turn} marked={marked} />);
  }
  return (
    <div
      ref={box}
      class="paper"
      role="group"
      aria-label={label}
      tabIndex={0}
      onPointerMove={move}
      onPointerDown={(event) => {
        start.current = under(event);
        if (mark && start.current !== null) mark(start.current, start.current + 1);
        move(event);
      }}
      onPointerLeave={() => choose(null)}
      onScroll={() => {
        const b = box.current!;
        pinned.current = b.scrollHeight - b.scrollTop - b.clientHeight < 40;
      }}
      onKeyDown={keys}
    >
      {before > 0 && signs.length < before + signs.length && <span class="earlier">({before} characters were read before) </span>}
      {signs.length === 0 && before === 0 ? <span class="empty">{empty}</span> : chunks}
    </div>
  );
}

/** Why: how much each joint in each frame counts for an answer, on the body, on a map of joints by frames, and in words. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Failure } from "../failure.tsx";
import { useRedraw } from "../observable.ts";
import { channels, colours } from "../paint.ts";
import type { Version } from "../service.ts";
import { Explaining } from "../why/explanation.ts";
import { MOST, byWay, foremost, largest, overTime, signed } from "../why/relevance.ts";
import type { Run } from "./run.ts";
import "../why/why.css";

/** An explanation of the answer after the frame before `to`. */
export interface Reason {
  label: string;
  from: number;
  to: number;
  /** [T][J] */
  cells: number[][];
  most: number;
  logit: number;
  off: number;
}

const NAMED = 3; // joints that are told in words

/** How much each joint of a frame counts, −1 to 1; null where the frame is in no explanation. */
export function marksAt(reason: Reason | null, frame: number): number[] | null {
  const row = reason?.cells[frame - reason.from];
  return reason === null || row === undefined || reason.most === 0 ? null : row.map((v) => v / reason.most);
}

/** Return why the frames that are shown cannot be explained: they are not those that the model read. */
export function unexplained({ timed, hz, frames }: Pick<Run, "timed" | "hz" | "frames">, version: Version): string | null {
  if (frames.length === 0) return null;
  if (timed) return "What a camera saw cannot be explained: the service brings it to the model's rate by its moments, and the page has not the frames that the model read.";
  if (version.hz !== null && hz !== version.hz) return `Frames at the model's own rate, ${version.hz} a second, can be explained; these are ${hz}.`;
  return null;
}

interface WhyProps {
  run: Run;
  version: Version;
  why: Explaining<Reason>;
  names: readonly string[];
}

export function Why({ run, version, why, names }: WhyProps) {
  const redraw = useRedraw();
  useEffect(() => why.changed.follow(redraw), [why]);
  const [chosen, choose] = useState("");
  const at = run.shown;
  const { found } = why;
  const answer = run.answers[at];
  if (!version.explain) {
    return <p class="note">Why it answers so cannot be shown: this version of {run.model.name} has no explanation (explain.onnx).</p>;
  }
  const refusal = unexplained(run, version);
  const ask = () => {
    run.pause();
    const now = run.shown; // it may have gone on since this was drawn
    run.seek(now);
    const to = now + 1;
    const from = Math.max(0, to - MOST);
    const frames = run.frames.slice(from, to);
    const label = chosen === "" ? run.answers[now]!.best : chosen;
    const persons = (version.persons ?? 1) > 1;
    void why.ask(
      { model: run.model.name, version: version.version, label, sequence: persons ? frames.map((frame) => [frame]) : frames },
      (told) => {
        const cells = byWay(told.gradient as number[][][][], frames);
        const off = told.off.reduce((sum, share) => sum + share, 0) / told.off.length;
        return { label, from, to, cells, most: largest(cells.flat()), logit: told.logit, off };
      },
    );
  };
  return (
    <div class="card" role="group" aria-label="Why">
      <div class="row">
        <h3>Why?</h3>
        <button disabled={answer === undefined || why.busy || refusal !== null} onClick={ask}>
          {why.busy ? "Computing…" : "Explain the answer at this frame"}
        </button>
        <label class="field">
          what speaks for
          <select value={chosen} onChange={(event) => choose(event.currentTarget.value)}>
            <option value="">the answer</option>
            {(version.labels ?? []).map((label) => (
              <option key={label}>{label}</option>
            ))}
          </select>
        </label>
        {found !== null && <button onClick={() => why.leave()}>Colour by sides again</button>}
      </div>
      {refusal !== null && <p class="note">{refusal}</p>}
      {why.error !== null && <Failure error={why.error} close={() => why.leave()} />}
      {found === null ? (
        <p class="note">Each joint and frame is then coloured by how much it speaks for the answer, or against it.</p>
      ) : (
        <Shown run={run} reason={found} names={names} others={(version.labels?.length ?? 1) - 1} />
      )}
    </div>
  );
}

function Shown({ run, reason, names, others }: { run: Run; reason: Reason; names: readonly string[]; others: number }) {
  const sums = useMemo(() => foremost(overTime(reason.cells), NAMED), [reason]);
  const seconds = (frame: number) => `${(frame / run.hz).toFixed(1)} s`;
  const frame = run.shown;
  const row = reason.cells[frame - reason.from];
  const here = row === undefined ? null : foremost(row, NAMED);
  const list = (all: typeof sums.given) => (all.length === 0 ? "nothing" : all.map((w) => `${names[w.index] ?? `joint ${w.index}`} ${signed(w.value)}`).join(", "));
  const strongest = reason.cells.reduce((best, row, t) => (largest(row) > largest(reason.cells[best]!) ? t : best), 0);
  const told = row === undefined ? [] : row.map((value, joint) => ({ joint, value }));
  return (
    <>
      <div class="row">
        <Keys label={reason.label} />
        <button
          onClick={() => {
            run.pause();
            run.seek(reason.from + strongest);
          }}
        >
          Show the frame that counts most
        </button>
      </div>
      <Cells run={run} reason={reason} names={names} />
      <div class="counts" aria-live="polite">
        <p>
          <b>Over all {reason.cells.length} frames</b>, for {reason.label}: {list(sums.given)}; against it: {list(sums.against)}.
        </p>
        <p>
          {here === null ? (
            `The frame that is shown (${seconds(frame)}) came after the answer that is explained.`
          ) : (
            <>
              <b>At {seconds(frame)}</b>, for it: {list(here.given)}; against it: {list(here.against)}.
            </>
          )}
        </p>
      </div>
      {told.length > 0 && (
        <details>
          <summary>Every joint at {seconds(frame)}</summary>
          <ul class="key small">
            {told.map(({ joint, value }) => (
              <li key={joint}>
                {names[joint] ?? `joint ${joint}`} <b>{signed(value)}</b>
              </li>
            ))}
          </ul>
        </details>
      )}
      <p class="note">
        Told is {reason.label} against the mean of the {others} others, at {seconds(reason.to - 1)}: there it leads by {signed(reason.logit)} (logits). A joint counts by the exact
        gradient of that lead through time, times its way from where it is on average{reason.from > 0 && `, over the last ${MOST} frames`}. It says what a small change would do, and
        is no cause. {Math.round(100 * reason.off)} % of the neurons were off in a frame: nothing passes through those.
      </p>
    </>
  );
}

/** The legend: colour, size and form say the same. */
function Keys({ label }: { label: string }) {
  const ring = (kind: "for" | "against", size: number) => (
    <circle cx="8" cy="8" r={size} fill={kind === "for" ? "currentColor" : "none"} stroke="currentColor" stroke-width="2" />
  );
  return (
    <p class="keys">
      {(["for", "against"] as const).map((kind) => (
        <span key={kind}>
          <svg class={kind} width="40" height="16" aria-hidden="true">
            {ring(kind, 2.5)}
            <g transform="translate(18 0)">{ring(kind, 6)}</g>
          </svg>{" "}
          {kind === "for" ? `full: speaks for ${label}` : `a ring: speaks against ${label}`}
        </span>
      ))}
      <span class="quiet">the larger and the stronger in colour, the more</span>
    </p>
  );
}

/** The map: a row for each joint, a column for each frame. A click shows that frame. */
function Cells({ run, reason, names }: { run: Run; reason: Reason; names: readonly string[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const line = useRef<HTMLDivElement>(null);
  const [T, J] = [reason.cells.length, reason.cells[0]?.length ?? 1];
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const paint = () => canvas.current && drawCells(canvas.current, reason);
    paint();
    dark.addEventListener("change", paint);
    return () => dark.removeEventListener("change", paint);
  }, [reason]);
  useEffect(() => {
    const column = run.shown - reason.from;
    line.current!.hidden = column < 0 || column >= T;
    line.current!.style.left = `${(100 * (column + 0.5)) / T}%`;
  });
  const under = (event: PointerEvent): [number, number] => {
    const box = canvas.current!.getBoundingClientRect();
    const place = (at: number, size: number, count: number) => Math.max(0, Math.min(count - 1, Math.floor((at / size) * count)));
    return [place(event.clientX - box.left, box.width, T), place(event.clientY - box.top, box.height, J)];
  };
  return (
    <div class="whymap">
      <canvas
        ref={canvas}
        class="why"
        width={T}
        height={J}
        role="img"
        aria-label={`Joints by frames: how much each of ${J} joints speaks for or against ${reason.label} in each of ${T} frames. The slider below goes from frame to frame.`}
        onPointerMove={(event) => {
          const [t, j] = under(event);
          event.currentTarget.title = `${names[j] ?? `joint ${j}`} at ${((reason.from + t) / run.hz).toFixed(1)} s: ${signed(reason.cells[t]![j]!)}`;
        }}
        onPointerDown={(event) => {
          run.pause();
          run.seek(reason.from + under(event)[0]);
        }}
      />
      <div class="down" ref={line} aria-hidden="true" />
      <p class="note">
        A row for each joint, from {names[0] ?? "the first"} at the top to {names.at(-1) ?? "the last"}; a column for each frame, {(reason.from / run.hz).toFixed(1)} to {((reason.to - 1) / run.hz).toFixed(1)} s. Point at a cell and its joint is named; click to see that frame.
      </p>
    </div>
  );
}

function drawCells(canvas: HTMLCanvasElement, { cells, most }: Reason): void {
  const found = colours("card", "for", "against");
  const [ground, given, against] = [channels(found["card"]!), channels(found["for"]!), channels(found["against"]!)];
  const image = new ImageData(cells.length, cells[0]?.length ?? 1);
  cells.forEach((row, t) =>
    row.forEach((value, j) => {
      const strong = most === 0 ? 0 : Math.sqrt(Math.abs(value) / most); // small ones are drawn out
      const end = value < 0 ? against : given;
      const at = 4 * (j * cells.length + t);
      for (let c = 0; c < 3; c++) image.data[at + c] = ground[c]! + strong * (end[c]! - ground[c]!);
      image.data[at + 3] = 255;
    }),
  );
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}

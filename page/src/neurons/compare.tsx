/** Compare a fork with its origin: where their states part, and when they meet again. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Bone } from "../action/bones.ts";
import type { Demo } from "../action/demos.tsx";
import type { Clip } from "../action/run.ts";
import { Stage } from "../action/stage.tsx";
import { Paper } from "../characters/paper.tsx";
import { Failure } from "../failure.tsx";
import { useRedraw } from "../observable.ts";
import { DASHES, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { Swatch } from "../swatch.tsx";
import { distance, parting } from "./search.ts";
import { pairs, type Watched, type WatchedMotion, type WatchedText } from "./source.ts";

/** What stands beside what, and since when. */
interface Pair<W extends Watched> {
  origin: W;
  twin: W;
  forkedAt: number;
  /** the session that the twin is a copy of, by name; null where it is a fork of the origin */
  other: string | null;
}

interface CompareProps extends Pair<WatchedText> {
  leave: () => void;
  step: number | null;
  choose: (step: number | null) => void;
}

const NEAR = 0.05; // the distance below which two states count as the same

export function Compare({ origin, twin, forkedAt, other, leave, step, choose }: CompareProps) {
  return (
    <div class="card">
      <Heading other={other} leave={leave} />
      <p class="note">{above(other)} What is typed here goes to {named(other)}, or to both.</p>
      <Paper
        signs={twin.writing.signs}
        before={other === null ? 0 : twin.writing.before}
        chosen={step === null ? null : step - twin.ahead}
        choose={(at) => choose(at === null ? null : at + twin.ahead)}
        label={`The text of ${named(other)}`}
        empty=""
      />
      {twin.writing.error !== null && <Failure error={twin.writing.error} close={() => twin.writing.clearError()} />}
      <div class="two">
        <Field label={other === null ? "The fork reads" : "The other reads"} take={(typed) => void twin.writing.type(typed)} />
        <Field
          label="Both read"
          take={(typed) => {
            void origin.writing.type(typed);
            void twin.writing.type(typed);
          }}
        />
      </div>
      <Apart origin={origin} twin={twin} forkedAt={forkedAt} other={other} unit="character" told={(of, at) => ` (“${of[at] as string}”)`} />
    </div>
  );
}

/** Say which is which. */
const named = (other: string | null): string => (other === null ? "the fork" : "the other");
const above = (other: string | null): string =>
  other === null ? "The origin is above." : `This one is above. The other is a copy that goes on from where ${other} stands, and the session itself stays as it is.`;

function Heading({ other, leave }: { other: string | null; leave: () => void }) {
  return (
    <div class="row ends">
      <h3>{other === null ? "A fork beside its origin" : `Session ${other} beside this one`}</h3>
      <button onClick={leave}>{other === null ? "Leave the fork" : "Leave the other"}</button>
    </div>
  );
}

interface MotionsProps extends Pair<WatchedMotion> {
  leave: () => void;
  demos: readonly Demo[];
  lines: readonly Bone[];
}

/** The same for motions. */
export function CompareMotions({ origin, twin, forkedAt, other, leave, demos, lines }: MotionsProps) {
  const redraw = useRedraw();
  useEffect(() => twin.changed.follow(redraw), [twin]);
  const both = (clip: Clip) => {
    void origin.play(clip);
    void twin.play(clip);
  };
  const chips = (label: string, play: (clip: Clip) => void, busy: boolean) => (
    <div class="row" role="group" aria-label={label}>
      <span class="quiet">{label}:</span>
      {demos.map((demo) => (
        <button key={demo.name} class="chip" disabled={busy} onClick={() => play(demo)}>
          {demo.motion}
        </button>
      ))}
    </div>
  );
  return (
    <div class="card">
      <Heading other={other} leave={leave} />
      <div class="film">
        <Stage body={twin.frames.at(-1) ?? demos[0]?.frames[0] ?? null} bones={lines} label={`The body of ${named(other)}`} />
        <div class="view">
          <p class="note">{above(other)} What is chosen here is played to {named(other)}, or to both.</p>
          {twin.error !== null && <Failure error={twin.error} />}
          {chips(other === null ? "The fork plays" : "The other plays", (clip) => void twin.play(clip), twin.playing !== null)}
          {chips("Both play", both, twin.playing !== null || origin.playing !== null)}
        </div>
      </div>
      <Apart origin={origin} twin={twin} forkedAt={forkedAt} other={other} unit="frame" told={() => ""} />
    </div>
  );
}

interface ApartProps extends Pair<Watched> {
  /** what a step is */
  unit: string;
  /** what was read at a step, in words */
  told: (read: readonly unknown[], step: number) => string;
}

/** How far the states are from each other since the fork: as lines, and in words. */
function Apart({ origin, twin, forkedAt, other, unit, told }: ApartProps) {
  const redraw = useRedraw();
  const { x, rows } = useMemo(() => apart(origin, twin, forkedAt), [origin, twin, origin.trace.length, twin.trace.length]);
  useEffect(() => {
    const stops = [origin.changed.follow(redraw), twin.changed.follow(redraw)];
    return () => stops.forEach((stop) => stop());
  }, [origin, twin]);
  const whole = x.map((_, i) => Math.max(...rows.map((row) => row[i]!)));
  const { parted, met } = parting(whole, NEAR);
  const read = (of: Watched) => told(of.read, forkedAt + x[parted!]! - 1);
  const what = parted === null || read(origin) === "" ? "" : `${read(origin).slice(0, -1)} and ${read(twin).slice(2)}`;
  return (
    <>
      <p class="axis">their distance, by {unit}</p>
      <Plot
        data={[x, ...rows.map((row) => row.slice())] as [number[], ...number[][]]}
        lines={rows.map((_, i) => ({ label: "", stroke: () => series(i), dash: () => DASHES[i % DASHES.length]!, width: () => 2 }))}
        height={160}
        label={`How far the states are from each other, layer by layer, over the ${unit}s since ${other === null ? "the fork" : "they stand side by side"}`}
        range={() => [0, 1.05]}
        unit=""
      />
      <ul class="key small">
        {origin.trace.layers.map((layer, i) => (
          <li key={layer.name}>
            <Swatch line={series(i)} dash={DASHES[i % DASHES.length]!} /> {layer.name}
          </li>
        ))}
      </ul>
      <p aria-live="polite">
        {courseOf({ steps: x.length, parted, met, last: whole.at(-1) ?? 0, what }, unit, other)}
      </p>
      <p class="note">
        The distance: the length of the states' difference beside the root of both lengths' squares; 0 is the same, 1 is nothing in common. Step is held against step; where both end alike, that end is held against that end.
      </p>
    </>
  );
}

interface Course {
  steps: number;
  /** the first step that the states are apart at, and the first behind it from which on they are not; from 0 */
  parted: number | null;
  met: number | null;
  /** their distance at the last step */
  last: number;
  /** what both read where they parted, in words */
  what: string;
}

/** Say where two states part and where they meet. */
export function courseOf({ steps, parted, met, last, what }: Course, unit: string, other: string | null): string {
  if (steps === 0 && other === null) return `Both stand at the same place. Give them different ${unit}s, and then the same.`;
  if (steps === 0) return `Neither has read anything since they stand side by side. Give both the same ${unit}s, and see whether their states meet.`;
  if (parted === null) return other === null ? `The same state so far, ${steps} ${unit}s after the fork.` : `Nearly the same state from the first ${unit} on: the distance is below ${NEAR} in every layer.`;
  const fork = other === null ? `They parted at ${unit} ${parted + 1} after the fork${what}` : parted === 0 ? "They are apart at first" : `They parted at ${unit} ${parted + 1}${what}`;
  return met === null
    ? `${fork} and have not met${other === null ? " again" : ""} by ${unit} ${steps}: the distance there is ${last.toFixed(2)}.`
    : `${fork} and met${other === null ? " again" : ""} at ${unit} ${met + 1}: their distance is below ${NEAR} in every layer.`;
}

/** Return how far both are apart at each step of the origin since the fork, layer by layer: [layer][step]. */
function apart(origin: Watched, twin: Watched, forkedAt: number): { x: number[]; rows: number[][] } {
  const x: number[] = [];
  const rows: number[][] = origin.trace.layers.map(() => []);
  for (const [mine, theirs] of pairs(origin, twin, forkedAt)) {
    const [a, b] = [origin.trace.at(mine), twin.trace.at(theirs)];
    if (a === undefined || b === undefined) continue;
    x.push(mine - forkedAt + 1);
    origin.trace.layers.forEach((layer, i) => rows[i]!.push(distance(a, b, layer.from, layer.size)));
  }
  return { x, rows };
}

function Field({ label, take }: { label: string; take: (text: string) => void }) {
  const [composing, compose] = useState(false);
  const send = (field: HTMLTextAreaElement) => {
    const typed = field.value.replaceAll("\r", "");
    field.value = "";
    if (typed !== "") take(typed);
  };
  return (
    <label class="typing">
      <span class="quiet">{label}:</span>
      <textarea
        rows={1}
        spellcheck={false}
        autocomplete="off"
        onCompositionStart={() => compose(true)}
        onCompositionEnd={(event) => {
          compose(false);
          send(event.currentTarget);
        }}
        onInput={(event) => {
          if (!composing) send(event.currentTarget);
        }}
      />
    </label>
  );
}

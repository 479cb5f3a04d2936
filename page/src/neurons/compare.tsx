/** Compare a fork with its origin: where their states part, and when they meet again. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Bone } from "../action/bones.ts";
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

interface CompareProps {
  origin: WatchedText;
  twin: WatchedText;
  forkedAt: number;
  leave: () => void;
  step: number | null;
  choose: (step: number | null) => void;
}

const NEAR = 0.05; // the distance below which two states count as the same

export function Compare({ origin, twin, forkedAt, leave, step, choose }: CompareProps) {
  return (
    <div class="card">
      <div class="row ends">
        <h3>A fork beside its origin</h3>
        <button onClick={leave}>Leave the fork</button>
      </div>
      <p class="note">The origin is above. What is typed here goes to the fork, or to both.</p>
      <Paper signs={twin.writing.signs} before={0} chosen={step} choose={choose} label="The text of the fork" empty="" />
      {twin.writing.error !== null && <Failure error={twin.writing.error} close={() => twin.writing.clearError()} />}
      <div class="two">
        <Field label="The fork reads" take={(typed) => void twin.writing.type(typed)} />
        <Field
          label="Both read"
          take={(typed) => {
            void origin.writing.type(typed);
            void twin.writing.type(typed);
          }}
        />
      </div>
      <Apart origin={origin} twin={twin} forkedAt={forkedAt} unit="character" told={(of, at) => ` (“${of[at] as string}”)`} />
    </div>
  );
}

interface MotionsProps {
  origin: WatchedMotion;
  twin: WatchedMotion;
  forkedAt: number;
  leave: () => void;
  demos: readonly Clip[];
  lines: readonly Bone[];
}

/** The same for motions. */
export function CompareMotions({ origin, twin, forkedAt, leave, demos, lines }: MotionsProps) {
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
          {demo.name}
        </button>
      ))}
    </div>
  );
  return (
    <div class="card">
      <div class="row ends">
        <h3>A fork beside its origin</h3>
        <button onClick={leave}>Leave the fork</button>
      </div>
      <div class="film">
        <Stage body={twin.frames.at(-1) ?? null} bones={lines} label="The body of the fork" />
        <div class="view">
          <p class="note">The origin is above. What is chosen here is played to the fork, or to both.</p>
          {twin.error !== null && <Failure error={twin.error} />}
          {chips("The fork plays", (clip) => void twin.play(clip), twin.playing !== null)}
          {chips("Both play", both, twin.playing !== null || origin.playing !== null)}
        </div>
      </div>
      <Apart origin={origin} twin={twin} forkedAt={forkedAt} unit="frame" told={() => ""} />
    </div>
  );
}

interface ApartProps {
  origin: Watched;
  twin: Watched;
  forkedAt: number;
  /** what a step is */
  unit: string;
  /** what was read at a step, in words */
  told: (read: readonly unknown[], step: number) => string;
}

/** How far the states are from each other since the fork: as lines, and in words. */
function Apart({ origin, twin, forkedAt, unit, told }: ApartProps) {
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
      <Plot
        data={[x, ...rows.map((row) => row.slice())] as [number[], ...number[][]]}
        lines={rows.map((_, i) => ({ label: "", stroke: () => series(i), dash: () => DASHES[i % DASHES.length]!, width: () => 2 }))}
        height={160}
        label={`How far the states are from each other, layer by layer, over the ${unit}s since the fork`}
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
        {x.length === 0
          ? `Both stand at the same place. Give them different ${unit}s, and then the same.`
          : parted === null
            ? `The same state so far, ${x.length} ${unit}s after the fork.`
            : `They parted at ${unit} ${parted + 1} after the fork${what}` +
              (met === null ? ` and have not met again by ${unit} ${x.length}: the distance there is ${whole.at(-1)!.toFixed(2)}.` : ` and met again at ${unit} ${met + 1}: their distance is below ${NEAR} in every layer.`)}
      </p>
      <p class="note">
        The distance: the length of the states' difference beside the root of both lengths' squares; 0 is the same, 1 is nothing in common. Step is held against step from the
        fork on; where both end alike, that end is held against that end.
      </p>
    </>
  );
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

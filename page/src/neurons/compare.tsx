/** Compare a fork with its origin: where their states part, and when they meet again. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { Paper } from "../characters/paper.tsx";
import { Failure } from "../failure.tsx";
import { useRedraw } from "../observable.ts";
import { DASHES, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { Swatch } from "../swatch.tsx";
import { distance, parting } from "./search.ts";
import { pairs, type WatchedText } from "./source.ts";

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
  const redraw = useRedraw();
  const { x, rows } = useMemo(() => apart(origin, twin, forkedAt), [origin, twin, origin.trace.length, twin.trace.length]);
  useEffect(() => {
    const stops = [origin.writing.changed.follow(redraw), twin.writing.changed.follow(redraw)];
    return () => stops.forEach((stop) => stop());
  }, [origin, twin]);
  const whole = x.map((_, i) => Math.max(...rows.map((row) => row[i]!)));
  const { parted, met } = parting(whole, NEAR);
  const sign = (text: WatchedText, at: number) => text.writing.signs[forkedAt + at]?.char ?? "";
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
      <Plot
        data={[x, ...rows.map((row) => row.slice())] as [number[], ...number[][]]}
        lines={rows.map((_, i) => ({ label: "", stroke: () => series(i), dash: () => DASHES[i % DASHES.length]!, width: () => 2 }))}
        height={160}
        label="How far the states are from each other, layer by layer, over the characters since the fork"
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
          ? "Both stand at the same place. Let them read different characters, and then the same."
          : parted === null
            ? `The same state so far, ${x.length} characters after the fork.`
            : `They parted at character ${parted + 1} after the fork (“${sign(origin, x[parted]! - 1)}” and “${sign(twin, x[parted]! - 1)}”)` +
              (met === null ? ` and have not met again by character ${x.length}: the distance there is ${whole.at(-1)!.toFixed(2)}.` : ` and met again at character ${met + 1}: their distance is below ${NEAR} in every layer.`)}
      </p>
      <p class="note">
        The distance: the length of the states' difference beside the root of both lengths' squares; 0 is the same, 1 is nothing in common. Character is held against
        character from the fork on; where both end alike, that end is held against that end.
      </p>
    </div>
  );
}

/** Return how far both are apart at each character of the origin since the fork, layer by layer: [layer][character]. */
function apart(origin: WatchedText, twin: WatchedText, forkedAt: number): { x: number[]; rows: number[][] } {
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

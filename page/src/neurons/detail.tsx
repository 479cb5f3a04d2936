/** One neuron: its weight and memory, its course over time, and what drives it. */
import { useMemo } from "preact/hooks";
import { DASHES, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { Swatch } from "../swatch.tsx";
import { visible } from "../characters/surprise.ts";
import type { Property } from "./properties.ts";
import { drive, memory, type Trace } from "./trace.ts";

interface DetailProps {
  trace: Trace;
  neuron: number;
  step: number | null;
  pins: readonly number[];
  pin: (neuron: number) => void;
  choose: (neuron: number) => void;
  /** the characters, where a text is read */
  chars: readonly string[] | null;
  properties: readonly Property[];
}

const SHOWN = 300; // steps of the course
const LINES = 6;

export function Detail({ trace, neuron, step, pins, pin, choose, chars, properties }: DetailProps) {
  const u = trace.u[neuron]!;
  const half = memory(u);
  const layer = trace.layerOf(neuron);
  const lines = [neuron, ...pins.filter((p) => p !== neuron)].slice(0, LINES);
  const from = Math.max(trace.dropped, trace.length - SHOWN);
  const x = Array.from({ length: trace.length - from }, (_, i) => from + i);
  const slow = Math.floor(trace.length / 20); // what is computed over all steps is renewed now and then
  const likes = useMemo(() => (chars === null ? [] : driving(trace, neuron, chars)), [trace, neuron, slow]);
  const goes = useMemo(
    () =>
      properties
        .map((p) => ({ name: p.name, r: correlation(trace, neuron, p.values) }))
        .filter((p) => Math.abs(p.r) > 0.2)
        .sort((a, b) => Math.abs(b.r) - Math.abs(a.r))
        .slice(0, 3),
    [trace, neuron, slow],
  );
  const on = useMemo(() => trace.row(neuron).filter((v) => v !== 0).length / Math.max(1, trace.length - trace.dropped), [trace, neuron, slow]);
  const now = step === null ? undefined : trace.at(step)?.[neuron];
  return (
    <div class="card detail">
      <div class="row ends">
        <h3>{trace.name(neuron)}</h3>
        <button aria-pressed={pins.includes(neuron)} onClick={() => pin(neuron)}>
          {pins.includes(neuron) ? "Pinned" : "Pin"}
        </button>
      </div>
      <dl class="facts">
        <div>
          <dt>its own weight u</dt>
          <dd>{u.toFixed(3)}</dd>
        </div>
        <div>
          <dt>remembers</dt>
          <dd>{half === Infinity ? "for ever" : half < 0.1 ? "nothing" : `${half < 10 ? half.toFixed(1) : half.toFixed(0)} steps`}</dd>
        </div>
        <div>
          <dt>not 0 in</dt>
          <dd>{(100 * on).toFixed(0)} % of steps</dd>
        </div>
        <div>
          <dt>{step === null ? "now" : "there"}</dt>
          <dd>{(now ?? trace.at(trace.length - 1)?.[neuron] ?? 0).toFixed(3)}</dd>
        </div>
      </dl>
      <p class="axis">its value, by step</p>
      <Plot
        data={[x, ...Array.from({ length: LINES }, (_, i) => (lines[i] === undefined ? x.map(() => null) : Array.from(trace.row(lines[i], from))))] as [number[], ...(number | null)[][]]}
        lines={Array.from({ length: LINES }, (_, i) => ({ label: "", stroke: () => series(i), dash: () => DASHES[i]!, width: () => (i === 0 ? 2.5 : 1.5) }))}
        height={150}
        label={`The course of ${trace.name(neuron)} over the last ${x.length} steps`}
        unit=""
        over={(plot, paint) => {
          if (step === null) return;
          const at = plot.valToPos(step, "x", true);
          const { left, top, width, height } = plot.bbox;
          if (at < left || at > left + width) return;
          paint.save();
          paint.strokeStyle = series(6);
          paint.lineWidth = 1;
          paint.beginPath();
          paint.moveTo(at, top);
          paint.lineTo(at, top + height);
          paint.stroke();
          paint.restore();
        }}
      />
      {lines.length > 1 && (
        <ul class="key small">
          {lines.map((n, i) => (
            <li key={n}>
              <button class="plain" onClick={() => choose(n)}>
                <Swatch line={series(i)} dash={DASHES[i]!} /> {trace.name(n)}
              </button>
            </li>
          ))}
        </ul>
      )}
      <p class="note">
        “Remembers”: after so many steps half of what it held is left, log ½ / log |u|{u < 0 && "; its u is negative, so what it holds changes sign, or goes out, at every step"}.
      </p>
      {likes.length > 0 && (
        <div>
          <p>Characters that drove it most here:</p>
          <ol class="guesses">
            {likes.map((like) => (
              <li key={like.char}>
                <span class="mono">{visible(like.char)}</span>
                <progress max={likes[0]!.mean} value={Math.max(0, like.mean)} aria-label={`drive by ${visible(like.char)}`} />
                <span>{like.mean.toFixed(2)}</span>
              </li>
            ))}
          </ol>
          <p class="note">The mean of what came in, h − u · h before it, over the steps where it was on ({layer.activation}: where it is off, nobody can tell).</p>
        </div>
      )}
      <p class="note">
        {goes.length > 0
          ? goesWith(goes)
          : trace.length > 20
            ? "It goes with none of the properties that can be searched for (|r| below 0.2)."
            : ""}
      </p>
    </div>
  );
}

/** Say what a neuron goes with, and what against: where the one is high the other is low. */
export function goesWith(goes: readonly { name: string; r: number }[]): string {
  const some = (chosen: typeof goes) => chosen.map((g) => `${g.name} (r = ${g.r.toFixed(2)})`).join(", ");
  const [along, against] = [goes.filter((g) => g.r > 0), goes.filter((g) => g.r <= 0)];
  const words = [along.length > 0 ? `with: ${some(along)}` : "", against.length > 0 ? `against: ${some(against)}` : ""].filter((part) => part !== "");
  return `It goes ${words.join("; and ")}.`;
}

/** Return the characters at which most came in, on average: of those that came at least twice with the neuron on. */
function driving(trace: Trace, neuron: number, chars: readonly string[]): { char: string; mean: number }[] {
  const sums = new Map<string, [number, number]>();
  const { activation } = trace.layerOf(neuron);
  for (let t = trace.dropped; t < Math.min(trace.length, chars.length); t++) {
    const before = t === 0 ? 0 : trace.at(t - 1)?.[neuron];
    if (before === undefined) continue;
    const came = drive(trace.at(t)![neuron]!, before, trace.u[neuron]!, activation);
    if (came === null) continue;
    const [sum, count] = sums.get(chars[t]!) ?? [0, 0];
    sums.set(chars[t]!, [sum + came, count + 1]);
  }
  return [...sums]
    .flatMap(([char, [sum, count]]) => (count > 1 && sum > 0 ? [{ char, mean: sum / count }] : []))
    .sort((a, b) => b.mean - a.mean)
    .slice(0, 6);
}

function correlation(trace: Trace, neuron: number, property: readonly number[]): number {
  const row = trace.row(neuron);
  let [n, sx, sy, xx, yy, xy] = [0, 0, 0, 0, 0, 0];
  for (let t = 0; t < Math.min(row.length, property.length - trace.dropped); t++) {
    const [x, y] = [row[t]!, property[t + trace.dropped]!];
    if (!Number.isFinite(y)) continue;
    n++;
    sx += x;
    sy += y;
    xx += x * x;
    yy += y * y;
    xy += x * y;
  }
  const spread = Math.sqrt((xx - (sx * sx) / n) * (yy - (sy * sy) / n));
  return n > 2 && spread > 1e-9 ? (xy - (sx * sy) / n) / spread : 0;
}

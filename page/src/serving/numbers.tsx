/** The service's numbers, live from /metrics. */
import { useEffect, useRef, useState } from "preact/hooks";
import { desk } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { quantile, readMetrics, total, type Sample } from "../metrics.ts";
import { useObservable } from "../observable.ts";
import { DASHES, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { metrics } from "../service.ts";
import { Swatch } from "../swatch.tsx";

const EVERY = 2000; // ms between two looks
const KEPT = 90; // looks that are shown: three minutes

interface Look {
  at: number;
  steps: number;
  characters: number;
  waits: number | null;
  runs: number | null;
  stores: number | null;
  slow: number | null;
  batch: number | null;
  waiting: number;
}

export function Numbers({ visible }: { visible: boolean }) {
  const [looks, keep] = useState<Look[]>([]);
  const [error, fail] = useState<unknown>(null);
  const [samples, sample] = useState<Sample[]>([]);
  const before = useRef<{ at: number; samples: Sample[] } | null>(null);
  const models = useObservable(desk.models) ?? [];
  useEffect(() => {
    if (!visible) return;
    let gone = false;
    const look = async () => {
      try {
        const now = readMetrics(await metrics());
        if (gone) return;
        const at = performance.now() / 1000;
        const last = before.current;
        before.current = { at, samples: now };
        sample(now);
        fail(null);
        if (last && at - last.at < 30) keep((all) => [...all, between(last, { at, samples: now })].slice(-KEPT));
      } catch (problem) {
        if (!gone) fail(problem);
      }
    };
    void look();
    const timer = setInterval(() => void look(), EVERY);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, [visible]);
  const last = looks.at(-1);
  const x = looks.map((look) => look.at - (last?.at ?? 0));
  const ms = (value: number | null) => (value === null ? null : 1000 * value);
  return (
    <>
      <div class="card">
        <h3>Models</h3>
        <div class="scroll" tabIndex={0} role="group" aria-label="Table of models">
          <table>
            <thead>
              <tr>
                <th scope="col">model</th>
                <th scope="col" class="wide">reads</th>
                <th scope="col" class="wide">runs on</th>
                <th scope="col" class="wide">kernel</th>
                <th scope="col" class="number">living sessions</th>
                <th scope="col" class="number">steps so far</th>
                <th scope="col" class="number">waiting</th>
              </tr>
            </thead>
            <tbody>
              {models.flatMap((model) =>
                model.versions.map((version) => {
                  const of = { model: model.name, version: version.version };
                  return (
                    <tr key={`${model.name} ${version.version}`}>
                      <td>
                        <b>{model.name}</b> {version.version}
                      </td>
                      <td class="wide">{model.modality}</td>
                      <td class="wide">{version.provider}</td>
                      <td class="wide">{version.kernel}</td>
                      <td class="number">{total(samples, "indrnn_sessions_active", of)}</td>
                      <td class="number">{total(samples, "indrnn_steps_total", of)}</td>
                      <td class="number">{total(samples, "indrnn_waiting", of)}</td>
                    </tr>
                  );
                }),
              )}
            </tbody>
          </table>
        </div>
      </div>
      {error !== null && <Failure error={error} />}
      <div class="charts">
        <Chart
          title="Steps and characters a second"
          x={x}
          lines={[
            { label: "steps", values: looks.map((l) => l.steps) },
            { label: "characters generated", values: looks.map((l) => l.characters) },
          ]}
          told={(v) => v.toFixed(v < 10 ? 1 : 0)}
        />
        <Chart
          title="Where a step's time goes, ms (medians)"
          x={x}
          lines={[
            { label: "waiting", values: looks.map((l) => ms(l.waits)) },
            { label: "the model", values: looks.map((l) => ms(l.runs)) },
            { label: "the store", values: looks.map((l) => ms(l.stores)) },
            { label: "waiting, 99 %", values: looks.map((l) => ms(l.slow)) },
          ]}
          told={(v) => v.toFixed(v < 10 ? 2 : 0)}
        />
        <Chart title="Sequences in one run of a model" x={x} lines={[{ label: "mean batch", values: looks.map((l) => l.batch) }]} told={(v) => v.toFixed(1)} />
        <Chart title="Steps that wait or run" x={x} lines={[{ label: "waiting", values: looks.map((l) => l.waiting) }]} told={(v) => v.toFixed(0)} />
      </div>
      <p class="note">
        From /metrics, every {EVERY / 1000} s while this view is shown; medians by straight lines within the histograms' buckets. Gaps: nothing was asked of the service.
      </p>
    </>
  );
}

function between(before: { at: number; samples: Sample[] }, now: { at: number; samples: Sample[] }): Look {
  const passed = now.at - before.at;
  const rate = (name: string) => (total(now.samples, name) - total(before.samples, name)) / passed;
  const middle = (name: string, q = 0.5) => quantile(before.samples, now.samples, name, q);
  const runs = total(now.samples, "indrnn_batch_size_count") - total(before.samples, "indrnn_batch_size_count");
  return {
    at: now.at,
    steps: rate("indrnn_steps_total"),
    characters: rate("indrnn_characters_total"),
    waits: middle("indrnn_queue_wait_seconds"),
    slow: middle("indrnn_queue_wait_seconds", 0.99),
    runs: middle("indrnn_engine_seconds"),
    stores: middle("indrnn_store_seconds"),
    batch: runs > 0 ? (total(now.samples, "indrnn_batch_size_sum") - total(before.samples, "indrnn_batch_size_sum")) / runs : null,
    waiting: total(now.samples, "indrnn_waiting"),
  };
}

interface ChartProps {
  title: string;
  x: number[];
  lines: { label: string; values: (number | null)[] }[];
  told: (value: number) => string;
}

function Chart({ title, x, lines, told }: ChartProps) {
  const latest = (values: (number | null)[]) => values.at(-1) ?? null;
  return (
    <div class="card">
      <h3>{title}</h3>
      <Plot
        data={[x, ...lines.map((line) => line.values)] as [number[], ...(number | null)[][]]}
        lines={lines.map((line, i) => ({ label: line.label, stroke: () => series(i), dash: () => DASHES[i]!, width: () => 2 }))}
        height={140}
        label={`${title}: ${lines.map((line) => `${line.label} ${latest(line.values) === null ? "nothing" : told(latest(line.values)!)}`).join(", ")}`}
        span={() => [Math.min(-30, x[0] ?? 0), 0]}
      />
      <ul class="key small">
        {lines.map((line, i) => (
          <li key={line.label}>
            <Swatch line={series(i)} dash={DASHES[i]!} /> {line.label} <b>{latest(line.values) === null ? "–" : told(latest(line.values)!)}</b>
          </li>
        ))}
      </ul>
    </div>
  );
}

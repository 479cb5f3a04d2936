/** Any model of numbers: its inputs as sliders or from a table, its outputs as lines. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { cells } from "../action/readers/csv.ts";
import { FileButton } from "../characters/view.tsx";
import { ModelChoice } from "../choice.tsx";
import { Session } from "../connection.ts";
import { desk, modelsOf, newest } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { useObservable, useRedraw } from "../observable.ts";
import { LocalRows, type ToldRows } from "../local/rows.ts";
import { RunHere } from "../local/switch.tsx";
import { DASHES, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { download, model as describe, type Model } from "../service.ts";
import { Swatch } from "../swatch.tsx";

const SHOWN = 300; // rows
const MESSAGE = 500; // rows a message
const LINES = 6;

/** A session of rows, and what came of them. */
class Rows {
  readonly session: Session;
  inputs: number[][] = [];
  outputs: number[][] = [];
  names: string[] = [];
  label = "";
  score = 0;
  error: unknown = null;
  busy = false;
  /** where the rows are read in the browser itself: by whom, and after which step the server's session was left */
  local: { reader: LocalRows; left: number } | null = null;
  /** between the server and the browser */
  moving = false;

  constructor(
    readonly model: Model,
    private readonly changed: () => void,
  ) {
    const classes = newest(model).labels;
    this.session = new Session(model.name, classes ? { every: true, topK: 3 } : {});
    this.names = classes ?? newest(model).values?.map((v) => v.name) ?? [];
  }

  async feed(rows: number[][]): Promise<void> {
    this.busy = true;
    this.error = null;
    this.changed();
    try {
      for (let at = 0; at < rows.length; at += MESSAGE) {
        const piece = rows.slice(at, at + MESSAGE);
        const told = await this.read(piece);
        this.take(piece, told.scores, told.outputs);
        if (told.best) [this.label, this.score] = [told.best.label, told.best.score];
        this.changed();
      }
    } catch (error) {
      this.error = error;
    }
    this.busy = false;
    this.changed();
  }

  /** Have rows read by the server, or here. */
  private async read(piece: number[][]): Promise<Omit<ToldRows, "outputs"> & { outputs?: Readonly<Record<string, unknown>> | undefined }> {
    if (this.local !== null) return this.local.reader.feed(piece);
    const { scores, outputs, predictions } = await this.session.feed(piece);
    return { outputs, ...(scores && { scores: scores.map((row) => row.slice()) }), ...(predictions[0] && { best: predictions[0] }) };
  }

  /** Take the state down and go on in the browser, or put it back on the server. */
  async move(): Promise<void> {
    if (this.busy) return;
    this.busy = this.moving = true;
    this.error = null;
    this.changed();
    try {
      this.local = this.local === null ? await this.down() : await this.up(this.local);
    } catch (error) {
      this.error = error;
    }
    this.busy = this.moving = false;
    this.changed();
  }

  private async down(): Promise<NonNullable<Rows["local"]>> {
    const { state } = await download(await this.session.open());
    const reader = await LocalRows.of(await describe(this.model.name), await state.arrayBuffer());
    return { reader, left: reader.step };
  }

  private async up({ reader, left }: NonNullable<Rows["local"]>): Promise<null> {
    if (reader.step !== left) await this.session.replace(reader.write(), left);
    return null;
  }

  private take(piece: number[][], scores: readonly (readonly number[])[] | undefined, outputs: Readonly<Record<string, unknown>> | undefined): void {
    this.inputs.push(...piece);
    if (scores) this.outputs.push(...scores.map((row) => row.slice()));
    if (outputs === undefined) return;
    const columns = columnsOf(outputs);
    this.names = columns.map(([name]) => name);
    const told = columns[0]?.[1].length ?? 0;
    piece.forEach((_, i) => this.outputs.push(columns.map(([, column]) => column[i - (piece.length - told)] ?? NaN)));
  }

  close(): void {
    this.session.forget();
  }
}

export function Numeric() {
  const served = useObservable(desk.models); // which may come after the view
  const models = useMemo(() => modelsOf("tensor"), [served]);
  const [chosen, choose] = useState<Model | undefined>(undefined);
  const model = chosen ?? models[0];
  const [turn, renew] = useState(0);
  if (model === undefined) return null;
  return (
    <div class="card">
      <div class="row ends">
        <h3>Models of numbers</h3>
        <div class="row">
          <ModelChoice models={models} current={model} choose={choose} />
          <button onClick={() => renew(turn + 1)}>Start again</button>
        </div>
      </div>
      <Fed key={`${model.name} ${turn}`} model={model} />
    </div>
  );
}

function Fed({ model }: { model: Model }) {
  const redraw = useRedraw();
  const [rows] = useState(() => new Rows(model, redraw));
  useEffect(() => () => rows.close(), [rows]);
  const version = newest(model);
  const features = version.features ?? [];
  const [row, set] = useState<number[]>(() => features.map(() => 0));
  const [reach, widen] = useState<number>(10);
  const [running, run] = useState(false);
  const [wrong, fail] = useState<unknown>(null);
  const current = useRef(row);
  current.current = row;
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => {
      if (!rows.busy) void rows.feed([current.current]);
    }, 1000 / Math.min(20, version.hz ?? 10));
    return () => clearInterval(timer);
  }, [running]);
  useEffect(() => {
    if (rows.error !== null) run(false);
  }, [rows.error]);
  const take = async (file: File) => {
    fail(null);
    try {
      const read = table(await file.text(), features.map((f) => f.name));
      set(read.at(-1)!);
      await rows.feed(read);
    } catch (problem) {
      fail(problem);
    }
  };
  const from = Math.max(0, rows.outputs.length - SHOWN);
  const x = rows.outputs.slice(from).map((_, i) => from + i + 1);
  const lines = Array.from({ length: Math.min(LINES, rows.names.length) }, (_, i) => i);
  return (
    <>
      {rows.error !== null && <Failure error={rows.error} />}
      {wrong !== null && <Failure error={wrong} close={() => fail(null)} />}
      <div class="two">
        <div class="view">
          <div class="row">
            <button class="main" onClick={() => run(!running)}>
              {running ? "Stop" : "Stream these numbers"}
            </button>
            <button disabled={running} onClick={() => void rows.feed([row])}>
              One row
            </button>
            <FileButton label="A table (.csv)…" accept=".csv,.tsv" take={(file) => void take(file)} />
          </div>
          {features.map((feature, i) => (
            <label class="field scrub" key={feature.name}>
              <span class="feature">
                {feature.name}
                {feature.unit && ` (${feature.unit})`}
              </span>
              <input
                type="range"
                min={-reach}
                max={reach}
                step="any"
                value={row[i]}
                onInput={(event) => set(row.map((v, k) => (k === i ? event.currentTarget.valueAsNumber : v)))}
              />
              <input
                type="number"
                step="any"
                aria-label={`${feature.name}, as a number`}
                value={Number(row[i]!.toFixed(3))}
                onInput={(event) => {
                  const v = event.currentTarget.valueAsNumber;
                  if (!Number.isFinite(v)) return;
                  if (Math.abs(v) > reach) widen(10 ** Math.ceil(Math.log10(Math.abs(v) + 1)));
                  set(row.map((old, k) => (k === i ? v : old)));
                }}
              />
            </label>
          ))}
          <label class="field">
            the sliders go from −{reach} to {reach}
            <button class="chip" onClick={() => widen(reach * 10)}>
              ten times as far
            </button>
          </label>
          <RunHere left={rows.local?.left ?? null} moving={rows.moving} disabled={rows.busy || running} toggle={() => void rows.move()} />
          <p class="note">A table has a header and a row a step; its columns are found by the names above, or taken in their order.</p>
        </div>
        <div class="view">
          <p class="answer small">{rows.label === "" ? "" : `${rows.label}, ${(100 * rows.score).toFixed(0)} %`}</p>
          <Plot
            data={[x, ...lines.map((i) => rows.outputs.slice(from).map((o) => (Number.isFinite(o[i]!) ? o[i]! : null)))] as [number[], ...(number | null)[][]]}
            lines={lines.map((i) => ({ label: rows.names[i]!, stroke: () => series(i), dash: () => DASHES[i]!, width: () => 2 }))}
            height={200}
            label={`What the model answered to the last ${x.length} rows`}
            unit=""
            {...(version.labels ? { range: () => [0, 1.02] as [number, number] } : {})}
          />
          <ul class="key small">
            {lines.map((i) => (
              <li key={i}>
                <Swatch line={series(i)} dash={DASHES[i]!} /> {rows.names[i]} {version.values?.[i]?.unit && <span class="quiet">{version.values[i].unit}</span>}{" "}
                <b>{rows.outputs.length === 0 ? "" : rows.outputs.at(-1)![i]!.toFixed(2)}</b>
              </li>
            ))}
          </ul>
          <p class="note">{rows.inputs.length} rows so far.</p>
        </div>
      </div>
    </>
  );
}

/** Return outputs as columns of numbers with their names; an output that has a shape of its own, as an adopted file's, has one for each number. */
export function columnsOf(outputs: Readonly<Record<string, unknown>>): [string, number[]][] {
  return Object.entries(outputs).flatMap(([name, told]): [string, number[]][] => {
    const rows = (Array.isArray(told) ? (told as unknown[]) : [told]).map((row) => (Array.isArray(row) ? (row.flat(Infinity) as number[]) : [Number(row)]));
    if (!Array.isArray(told) || !Array.isArray(told[0])) return [[name, rows.map(([v]) => v!)]];
    return rows[0]!.map((_, k): [string, number[]] => [`${name}_${k}`, rows.map((row) => row[k]!)]);
  });
}

/** Return the rows of a table, in the order of the features. */
export function table(text: string, features: readonly string[]): number[][] {
  const [header, ...rows] = cells(text);
  if (header === undefined) throw new Error("The table is empty.");
  const named = features.map((name) => header.indexOf(name));
  const bare = header.every((cell) => cell !== "" && Number.isFinite(Number(cell)));
  const columns = named.every((i) => i >= 0) ? named : features.map((_, i) => i);
  const read = (bare ? [header, ...rows] : rows).map((row, r) =>
    columns.map((c, i) => {
      const value = Number(row[c] === "" ? NaN : row[c]);
      if (!Number.isFinite(value)) throw new Error(`Row ${r + 1}: expected a number for ${features[i]}, got ${JSON.stringify(row[c] ?? null)}.`);
      return value;
    }),
  );
  if (read.length === 0) throw new Error("The table has a header and no rows.");
  return read;
}

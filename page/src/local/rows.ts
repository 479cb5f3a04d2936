/** A session of numbers that goes on in the browser: the same graph, the same state, answers worded as the service does. */
import type { Model, Version } from "../service.ts";
import { NotHere, needRoom, softmax, versionOf } from "./refusals.ts";
import { Graph } from "./runtime.ts";
import { readState, writeState, type StateFile } from "./state_file.ts";

/** What comes of rows: of classes scores [T][K] and the last label, of values each by its name. */
export interface ToldRows {
  scores?: number[][];
  best?: { label: string; score: number };
  outputs?: Record<string, number[]>;
}

export class LocalRows {
  private constructor(
    private readonly graph: Pick<Graph, "runNumbers" | "step">,
    private readonly version: Version,
    private file: StateFile,
  ) {}

  /** Load the version that a state is of and go on from the state. Throws NotHere where only the service can. */
  static async of(model: Model, state: ArrayBuffer): Promise<LocalRows> {
    const version = versionOf(model, readState(state));
    refuse(version);
    return LocalRows.with(await Graph.of(model.name, version), version, state);
  }

  static with(graph: Pick<Graph, "runNumbers" | "step">, version: Version, state: ArrayBuffer): LocalRows {
    refuse(version);
    return new LocalRows(graph, version, readState(state));
  }

  get step(): number {
    return Number(this.file.metadata["step"]);
  }

  get position(): number {
    return Number(this.file.metadata["position"]);
  }

  /** Take rows [T][F] as one step. Where it throws, nothing has moved. */
  async feed(rows: readonly (readonly number[])[]): Promise<ToldRows> {
    needRoom(this.position + rows.length, this.version.limits.max_position);
    const size = this.graph.step.reduce((a, b) => a * b, 1);
    const { logits, state } = await this.graph.runNumbers(rows.map((row) => this.filled(row, size)), this.file.state);
    if (!state.every((v) => Number.isFinite(v))) throw new Error("The state became infinite. Nothing of these rows was kept.");
    const metadata = { ...this.file.metadata, step: String(this.step + 1), position: String(this.position + rows.length) };
    this.file = { metadata, state };
    return this.told(logits);
  }

  /** The state as a file. */
  write(): Uint8Array<ArrayBuffer> {
    return writeState(this.file);
  }

  /** A row as a step of x; what is left of x is 0. */
  private filled(row: readonly number[], size: number): Float32Array {
    const x = new Float32Array(size);
    x.set(row);
    const wrong = row.find((v) => !Number.isFinite(Math.fround(v)));
    if (wrong !== undefined) throw new NotHere(`Expected a number within float32, got ${wrong}.`);
    return x;
  }

  private told(logits: readonly Float32Array[]): ToldRows {
    const { labels, values, answer } = this.version;
    if (labels) {
      const scores = logits.map(softmax);
      const score = Math.max(...scores.at(-1)!);
      return { scores, best: { label: labels[scores.at(-1)!.indexOf(score)]!, score } };
    }
    const told = answer === "step" ? logits : logits.slice(-1);
    return { outputs: Object.fromEntries(values!.map(({ name }, k) => [name, told.map((row) => row[k]!)])) };
  }
}

/** Throw where the browser cannot do what the service does. */
function refuse(version: Version): void {
  if (version.layout !== null) throw new NotHere("This model takes joints as numbers, in a form that only the service reads.");
  if ((version.window ?? 1) > 1) {
    throw new NotHere(`This model answers once for ${version.window} rows, a window that only the service fills.`);
  }
  if (version.events) throw new NotHere("This model tells events, which only the service does.");
  if (!version.labels && !version.values) throw new NotHere("This model's answers have shapes of their own, which only the service words.");
}

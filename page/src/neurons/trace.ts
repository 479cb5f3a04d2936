/** The hidden state over time: every recurrent neuron after every step. */
import type { Neurons } from "../../client/src/index.ts";
import type { Part } from "../service.ts";

/** A layer's stretch of the neurons. */
export interface Layer {
  name: string;
  from: number;
  size: number;
  activation: string;
}

/** A state of 3,200 neurons takes 13 KB a step. */
const MOST = 2000; // steps that are kept

export class Trace {
  readonly layers: Layer[] = [];
  readonly size: number;
  /** the recurrent weight of each neuron; 0 where a cell has none of its own */
  readonly u: Float32Array;
  /** the largest |h| so far, neuron by neuron */
  readonly most: Float32Array;
  private readonly columns: Float32Array[] = [];
  /** steps that came before those that are kept */
  dropped = 0;

  /** parts: the state's parts of the model, of which the recurrent ones are watched, layer by layer. */
  constructor(private readonly parts: readonly Part[]) {
    const hidden = parts.filter((part) => part.role === "hidden");
    let from = 0;
    for (const part of hidden) {
      this.layers.push({ name: `layer ${(part.layer ?? this.layers.length) + 1}`, from, size: part.size, activation: part.activation ?? "" });
      from += part.size;
    }
    this.size = from;
    this.u = new Float32Array(from);
    this.most = new Float32Array(from);
    hidden.forEach((part, i) => part.u && this.u.set(part.u.slice(0, part.size), this.layers[i]!.from));
  }

  /** The number of steps so far, those that were dropped included. */
  get length(): number {
    return this.dropped + this.columns.length;
  }

  /** The state after a step; undefined where it is not kept. */
  at(step: number): Float32Array | undefined {
    return this.columns[step - this.dropped];
  }

  /** Put states behind those there are. */
  push({ values, shape: [steps, size] }: Neurons): void {
    if (size !== this.size) throw new Error(`Expected ${this.size} neurons, got ${size}.`);
    for (let t = 0; t < steps; t++) {
      const column = values.slice(t * size, (t + 1) * size);
      for (let i = 0; i < size; i++) {
        const v = Math.abs(column[i]!);
        if (v > this.most[i]!) this.most[i] = v;
      }
      this.columns.push(column);
    }
    this.forget();
  }

  /** Return a second trace that goes on from here by itself. */
  copy(): Trace {
    const twin = new Trace(this.parts);
    twin.columns.push(...this.columns);
    twin.dropped = this.dropped;
    twin.most.set(this.most);
    return twin;
  }

  /** Return a trace of another sequence that is watched from here on: nothing is known of the steps before. */
  beside(): Trace {
    const other = new Trace(this.parts);
    other.skip(this.length);
    return other;
  }

  /** Return a trace for the differences of two: as many neurons, and values of both signs. */
  empty(): Trace {
    return new Trace(this.parts.map((part) => ({ ...part, activation: "difference" })));
  }

  /** Steps that nobody watched: their place is kept, so that states and text stay side by side. */
  skip(steps: number): void {
    const nothing = new Float32Array(this.size);
    for (let t = 0; t < steps; t++) this.columns.push(nothing);
    this.forget();
  }

  private forget(): void {
    const over = this.columns.length - MOST;
    if (over <= 0) return;
    this.columns.splice(0, over);
    this.dropped += over;
  }

  /** One neuron over the kept steps from `from` on. */
  row(neuron: number, from = this.dropped, to = this.length): Float32Array {
    const out = new Float32Array(Math.max(0, to - from));
    for (let t = 0; t < out.length; t++) out[t] = this.columns[from + t - this.dropped]![neuron]!;
    return out;
  }

  layerOf(neuron: number): Layer {
    return this.layers.findLast((layer) => layer.from <= neuron)!;
  }

  /** The neurons of some layers, those with the longest memory first. */
  sorted(layers: readonly Layer[]): Int32Array {
    const all = layers.flatMap((layer) =>
      Array.from({ length: layer.size }, (_, i) => layer.from + i).sort((a, b) => Math.abs(this.u[b]!) - Math.abs(this.u[a]!)),
    );
    return Int32Array.from(all);
  }

  /** A neuron as people call it: its layer, and its place there, from 0. */
  name(neuron: number): string {
    const layer = this.layerOf(neuron);
    return `${layer.name}, neuron ${neuron - layer.from}`;
  }
}

/** Return after how many steps half of a state is left: log ½ / log |u|. */
export function memory(u: number): number {
  const size = Math.abs(u);
  return size === 0 ? 0 : size >= 1 ? Infinity : Math.log(0.5) / Math.log(size);
}

/** Return what came in at a step, W x + b: exact where a relu neuron is on, and null where it is off, for then nobody can tell. */
export function drive(now: number, before: number, u: number, activation: string): number | null {
  if (activation === "relu") return now > 0 ? now - u * before : null;
  return activation === "identity" ? now - u * before : null;
}

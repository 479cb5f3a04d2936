/** A session of characters that goes on in the browser: the same graph, the same state, the step numbers counted on. */
import type { Model, Version } from "../service.ts";
import { versionOf } from "./refusals.ts";
import { Graph } from "./runtime.ts";
import { readState, writeState, type StateFile } from "./state_file.ts";

/** A character that was read or drawn, and log-probabilities over the alphabet before it. */
export interface Read {
  char: string;
  /** null of a character that the alphabet lacks */
  logprob: number | null;
  scores: Float32Array;
}

export interface Drawing {
  temperature: number;
  topP: number;
  /** between 0 and 1, a number a draw */
  random: () => number;
}

export class LocalReader {
  /** log-probabilities of what comes next */
  next: Float32Array;

  private constructor(
    private readonly graph: Pick<Graph, "run">,
    private readonly file: StateFile,
    private readonly alphabet: readonly string[],
    private readonly unknown: string | null,
    lastLogits: Float32Array,
  ) {
    this.next = logSoftmax(lastLogits);
  }

  /** Load the version that a state is of and go on from the state. Throws NotHere where it is not served. */
  static async of(model: Model, state: ArrayBuffer): Promise<LocalReader> {
    const version = versionOf(model, readState(state));
    return LocalReader.with(await Graph.of(model.name, version), version, state);
  }

  static with(graph: Pick<Graph, "run">, version: Pick<Version, "alphabet" | "unknown" | "state">, state: ArrayBuffer): LocalReader {
    const file = readState(state);
    const last = version.state.find((part) => part.role === "last_logits")!;
    return new LocalReader(graph, file, version.alphabet ?? [], version.unknown, file.state.slice(last.offset, last.offset + last.size));
  }

  get step(): number {
    return Number(this.file.metadata["step"]);
  }

  get position(): number {
    return Number(this.file.metadata["position"]);
  }

  /** Read a text as one step. Characters that the alphabet lacks are read as its symbol for them. */
  async read(text: string): Promise<Read[]> {
    const chars = Array.from(text.normalize("NFC"));
    const symbols = chars.map((char) => this.symbol(char));
    const found = await this.advance(symbols);
    this.count(1, 0);
    return found.map((read, i) => ({ ...read, char: chars[i]!, logprob: this.alphabet.includes(chars[i]!) ? read.logprob : null }));
  }

  /** Draw characters, as one step, until there are enough of them or `going` says no. */
  async *draw(count: number, { temperature, topP, random }: Drawing, going: () => boolean): AsyncGenerator<Read, void, undefined> {
    let drawn = 0;
    try {
      for (; drawn < count && going(); drawn++) yield (await this.advance([pick(this.next, temperature, topP, random())]))[0]!;
    } finally {
      if (drawn > 0) this.count(1, 0);
    }
  }

  /** The state as a file. */
  write(): Uint8Array<ArrayBuffer> {
    return writeState(this.file);
  }

  private symbol(char: string): number {
    const found = this.alphabet.indexOf(char);
    if (found >= 0) return found;
    if (this.unknown === null) throw new Error(`The model's alphabet has no ${JSON.stringify(char)}.`);
    return this.alphabet.indexOf(this.unknown);
  }

  private async advance(symbols: readonly number[]): Promise<Read[]> {
    const { logits, state } = await this.graph.run(symbols, this.file.state);
    this.file.state = state;
    this.count(0, symbols.length);
    return symbols.map((symbol, i) => {
      const scores = this.next;
      this.next = logSoftmax(logits[i]!);
      return { char: this.alphabet[symbol]!, logprob: scores[symbol]!, scores };
    });
  }

  private count(steps: number, characters: number): void {
    this.file.metadata["step"] = String(this.step + steps);
    this.file.metadata["position"] = String(this.position + characters);
  }
}

/** Return log-probabilities in nats. */
export function logSoftmax(logits: Float32Array): Float32Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = Math.log(logits.reduce((total, v) => total + Math.exp(v - most), 0));
  return logits.map((v) => v - most - sum);
}

/** Draw from log-probabilities: tempered, then the smallest set of likeliest symbols whose mass is `topP`. */
export function pick(scores: Float32Array, temperature: number, topP: number, random: number): number {
  const order = Array.from(scores, (_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
  if (temperature === 0) return order[0]!;
  const weights = order.map((i) => Math.exp((scores[i]! - scores[order[0]!]!) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let kept = 0;
  for (let mass = 0; kept < weights.length && mass < topP * total; kept++) mass += weights[kept]!;
  let left = random * weights.slice(0, kept).reduce((a, b) => a + b, 0);
  for (let i = 0; i < kept; i++) {
    left -= weights[i]!;
    if (left < 0) return order[i]!;
  }
  return order[Math.max(0, kept - 1)]!;
}

/** Return a generator of numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

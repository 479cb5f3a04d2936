/** What the network reads while its neurons are watched: a text, or motions. */
import type { Neurons } from "../../client/src/index.ts";
import type { Clip } from "../action/run.ts";
import { Writing } from "../characters/writing.ts";
import { Session } from "../connection.ts";
import { Observable } from "../observable.ts";
import { ServiceError, fork, type Model, type SessionInfo, type Version } from "../service.ts";
import { commonEnd } from "./search.ts";
import { Trace } from "./trace.ts";

/** A sequence whose neurons are watched: the states, and what was read, step by step. */
export interface Watched {
  readonly trace: Trace;
  readonly changed: Observable<number>;
  readonly read: readonly unknown[];
}

/** A text whose neurons are watched. */
export class WatchedText implements Watched {
  constructor(
    readonly writing: Writing,
    readonly trace: Trace,
  ) {
    writing.onNeurons = (neurons, first) => take(trace, neurons, first);
  }

  static of(model: Model, full: Version): WatchedText {
    return new WatchedText(new Writing(model, null, true), new Trace(full.state));
  }

  get changed(): Observable<number> {
    return this.writing.changed;
  }

  get read(): readonly string[] {
    return this.writing.signs.map((sign) => sign.char);
  }

  async fork(): Promise<WatchedText> {
    const twin = await this.writing.fork();
    return new WatchedText(twin, this.trace.copy());
  }
}

/**
 * Return which steps of two sequences are held against each other since their fork: step by step; where both end alike, end against end.
 */
export function pairs(origin: Watched, twin: Watched, forkedAt: number): [number, number][] {
  const since = (one: Watched) => one.read.slice(forkedAt, one.trace.length);
  const [a, b] = [since(origin), since(twin)];
  const alike = commonEnd(a, b);
  const found: [number, number][] = [];
  for (let t = 0; t < a.length; t++) {
    const other = t >= a.length - alike ? t + b.length - a.length : t;
    if (other < b.length) found.push([forkedAt + t, forkedAt + other]);
  }
  return found;
}

/** Return the differences of two sequences' states, step by step of the origin. */
export function difference(origin: Watched, twin: Watched, forkedAt: number): Trace {
  const trace = origin.trace.empty();
  trace.skip(forkedAt);
  for (const [mine, theirs] of pairs(origin, twin, forkedAt)) {
    const [a, b] = [origin.trace.at(mine), twin.trace.at(theirs)];
    if (a && b) trace.push({ values: a.map((v, i) => v - b[i]!), shape: [1, trace.size] });
  }
  return trace;
}

function take(trace: Trace, neurons: Neurons, first: number): void {
  if (trace.length < first) trace.skip(first - trace.length); // an answer from the store has no states
  trace.push(neurons);
}

const PIECE = 3; // frames a message

/** Motions whose neurons are watched, played in their own time. */
export class WatchedMotion implements Watched {
  readonly frames: Clip["frames"][number][] = [];
  readonly changed = new Observable(0);
  hz = 30;
  playing: string | null = null;
  error: unknown = null;
  private readonly session: Session;
  private turn = 0;
  private closed = false;

  constructor(
    readonly model: Model,
    private readonly full: Version,
    readonly trace = new Trace(full.state),
    at: SessionInfo | null = null,
  ) {
    this.hz = full.hz ?? 30;
    this.session = new Session(model.name, { topK: 1, hz: this.hz }, at?.session_id ?? null);
  }

  get read(): readonly unknown[] {
    return this.frames;
  }

  /** Return a second sequence that stands where this one does, once it plays no more. Throws where this was closed meanwhile. */
  async fork(): Promise<WatchedMotion> {
    const twin = new WatchedMotion(this.model, this.full, this.trace.copy(), await fork(await this.session.open()));
    if (this.closed) {
      twin.close();
      throw new ServiceError("closed", "The session was closed.");
    }
    twin.frames.push(...this.frames);
    return twin;
  }

  async play(clip: Clip): Promise<void> {
    const turn = ++this.turn;
    this.playing = clip.name;
    this.error = null;
    this.tell();
    const persons = this.full.persons ?? 1;
    const begun = performance.now();
    try {
      if (this.session.parts.length === 0) await this.session.watch();
      for (let at = 0; at < clip.frames.length && turn === this.turn; at += PIECE) {
        const piece = clip.frames.slice(at, at + PIECE);
        const { states } = await this.session.feed(persons > 1 ? piece.map((frame) => [frame]) : piece);
        this.frames.push(...piece);
        if (states) take(this.trace, states, this.frames.length - piece.length);
        this.tell();
        const early = begun + (1000 * (at + PIECE)) / this.hz - performance.now();
        if (early > 0) await new Promise((done) => setTimeout(done, early));
      }
    } catch (error) {
      if (!(error instanceof ServiceError && error.code === "closed")) this.error = error;
    }
    if (turn === this.turn) this.playing = null;
    this.tell();
  }

  stop(): void {
    this.turn++;
    this.playing = null;
    this.tell();
  }

  close(): void {
    this.stop();
    this.closed = true;
    this.session.forget();
  }

  private tell(): void {
    this.changed.set(this.changed.value + 1);
  }
}

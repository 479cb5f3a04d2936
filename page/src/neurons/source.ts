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
  /** steps that stand before the first that was watched, where this one is held beside another that was longer there */
  readonly ahead: number;
  readonly trace: Trace;
  readonly changed: Observable<number>;
  readonly read: readonly unknown[];
}

/** What can be held beside a fork of itself, or a copy of another session. */
export interface Comparable<W> {
  fork(): Promise<W>;
  beside(session: SessionInfo): Promise<W>;
}

/** A text whose neurons are watched. */
export class WatchedText implements Watched, Comparable<WatchedText> {
  constructor(
    readonly writing: Writing,
    readonly trace: Trace,
    readonly ahead = 0,
  ) {
    writing.onNeurons = (neurons, first) => take(trace, neurons, ahead + first);
  }

  /** Return a text that goes on where a session stands, or begins. */
  static of(model: Model, full: Version, at: SessionInfo | null = null): WatchedText {
    return new WatchedText(new Writing(model, at, true), new Trace(full.state));
  }

  /** The session's id, once it is open. */
  get id(): string | null {
    return this.writing.session.id;
  }

  get changed(): Observable<number> {
    return this.writing.changed;
  }

  get read(): readonly string[] {
    return [...nothing(this.ahead), ...this.writing.signs.map((sign) => sign.char)];
  }

  async fork(): Promise<WatchedText> {
    const twin = await this.writing.fork();
    return new WatchedText(twin, this.trace.copy());
  }

  /** Return a copy of another session of the same version, to be held beside this text from here on. Throws where this was closed meanwhile. */
  async beside(session: SessionInfo): Promise<WatchedText> {
    const other = new Writing(this.writing.model, await fork(session.session_id), true);
    if (this.writing.left) gone(() => other.close(true));
    return new WatchedText(other, this.trace.beside(), this.trace.length);
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

function nothing(steps: number): string[] {
  return Array.from({ length: steps }, () => "");
}

/** End what was made for a view that has gone. */
function gone(close: () => void): never {
  close();
  throw new ServiceError("closed", "The session was closed.");
}

function take(trace: Trace, neurons: Neurons, first: number): void {
  if (trace.length < first) trace.skip(first - trace.length); // an answer from the store has no states
  trace.push(neurons);
}

const PIECE = 3; // frames a message

/** Motions whose neurons are watched, played in their own time. */
export class WatchedMotion implements Watched, Comparable<WatchedMotion> {
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
    readonly ahead = 0,
  ) {
    this.hz = full.hz ?? 30;
    this.session = new Session(model.name, { topK: 1, hz: this.hz }, at?.session_id ?? null);
  }

  /** The session's id, once it is open. */
  get id(): string | null {
    return this.session.id;
  }

  /** Return motions that go on where a session stands, or begin. */
  static of(model: Model, full: Version, at: SessionInfo | null = null): WatchedMotion {
    return new WatchedMotion(model, full, new Trace(full.state), at);
  }

  get read(): readonly unknown[] {
    return [...nothing(this.ahead), ...this.frames];
  }

  /** Return a second sequence that stands where this one does, once it plays no more. Throws where this was closed meanwhile. */
  async fork(): Promise<WatchedMotion> {
    const twin = new WatchedMotion(this.model, this.full, this.trace.copy(), await fork(await this.session.open()));
    if (this.closed) gone(() => twin.close());
    twin.frames.push(...this.frames);
    return twin;
  }

  /** Return a copy of another session of the same version, to be held beside this one from here on. Throws where this was closed meanwhile. */
  async beside(session: SessionInfo): Promise<WatchedMotion> {
    const other = new WatchedMotion(this.model, this.full, this.trace.beside(), await fork(session.session_id), this.trace.length);
    if (this.closed) gone(() => other.close());
    return other;
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
        if (states) take(this.trace, states, this.ahead + this.frames.length - piece.length);
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

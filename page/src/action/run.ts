/** A stream of motions through one session: what was sent, what was answered, and where the eye is. */
import { Session } from "../connection.ts";
import { newest } from "../desk.ts";
import { Observable } from "../observable.ts";
import { ServiceError, remove, type Model, type SessionInfo, type Version } from "../service.ts";
import { OTHER, answer, carriedOver, sureSince, type Answer } from "./sureness.ts";

export interface Clip {
  name: string;
  frames: readonly (readonly (readonly number[] | null)[])[];
  hz: number;
}

export interface Played {
  name: string;
  from: number;
  /** one behind the last; null while it runs */
  to: number | null;
}

const AHEAD = 6; // frames that are answered before they are shown, so that nothing jerks
const PIECE = 3; // frames a message
const KEPT = 9000; // frames after which a new stream is begun: five minutes at 30 Hz

export class Run {
  frames: Clip["frames"][number][] = [];
  scores: (readonly number[])[] = [];
  answers: Answer[] = [];
  warnings: string[] = [];
  clips: Played[] = [];
  /** the frame that is shown, with its fraction */
  cursor = 0;
  speed = 1;
  playing = false;
  error: unknown = null;
  hz = 30;
  readonly changed = new Observable(0);
  private session: Session | null = null;
  /** a session of somebody's that was opened here, until another is begun; it is not deleted when it is left */
  handed: SessionInfo | null;
  private clip: Clip | null = null;
  private sent = 0;
  private feeding = false;
  private ticking = false;
  private before = 0;
  private generation = 0;
  onEnd: (() => void) | null = null;

  constructor(
    readonly model: Model,
    private at: SessionInfo | null = null,
  ) {
    this.handed = at;
  }

  get version(): Version {
    return this.model.versions.find((v) => v.version === this.handed?.version) ?? newest(this.model);
  }

  get shown(): number {
    return Math.min(this.answers.length - 1, Math.floor(this.cursor));
  }

  get running(): boolean {
    return this.clip !== null;
  }

  get position(): number {
    return this.session?.position ?? 0;
  }

  /** Play a clip behind what was played, in the same session; `anew` begins another session. */
  play(clip: Clip, anew: boolean): void {
    if (anew || (this.frames.length > 0 && clip.hz !== this.hz) || this.frames.length > KEPT) this.begin();
    const last = this.clips.at(-1);
    if (last) last.to ??= this.frames.length;
    this.hz = clip.hz;
    this.clip = clip;
    this.sent = 0;
    this.error = null;
    this.clips.push({ name: clip.name, from: this.frames.length, to: null });
    this.cursor = Math.max(0, this.frames.length - 1);
    this.resume();
  }

  resume(): void {
    if (this.cursor >= this.frames.length - 1 && this.clip === null) this.cursor = this.clips.at(-1)?.from ?? 0;
    this.playing = true;
    this.error = null;
    if (!this.ticking) {
      this.ticking = true;
      this.before = performance.now();
      requestAnimationFrame(this.tick);
    }
    this.tell();
  }

  pause(): void {
    this.playing = false;
    this.tell();
  }

  seek(frame: number): void {
    this.cursor = frame;
    this.tell();
  }

  /** Forget the session and begin at the start of a sequence. */
  begin(): void {
    this.close();
    this.generation++;
    this.frames = [];
    this.scores = [];
    this.answers = [];
    this.clips = [];
    this.warnings = [];
    this.clip = null;
    this.cursor = 0;
    this.playing = false;
    this.error = null;
    this.tell();
  }

  close(): void {
    const left = this.session;
    this.session = null;
    left?.close();
    if (left?.id && this.handed === null) remove(left.id).catch(() => undefined);
    this.handed = null;
    this.at = null;
  }

  /** The clip that a frame belongs to. */
  clipAt(frame: number): Played | undefined {
    return this.clips.findLast((clip) => clip.from <= frame);
  }

  /** Since when, in frames, the answer at a frame has been the same without a break, within its clip; null where that began before it. */
  sureAt(frame: number): number | null {
    const clip = this.clipAt(frame);
    if (clip === undefined) return null;
    const since = sureSince(this.answers, clip.from, frame);
    return since === clip.from && carriedOver(this.answers, clip.from) ? null : since;
  }

  private readonly tick = (now: number): void => {
    if (!this.playing) {
      this.ticking = false;
      return;
    }
    const passed = Math.min(0.25, (now - this.before) / 1000);
    this.before = now;
    this.cursor = Math.min(this.answers.length - 1, this.cursor + passed * this.hz * this.speed);
    if (this.clip !== null && this.answers.length - this.cursor < AHEAD * Math.max(1, this.speed)) void this.feed();
    if (this.clip === null && this.cursor >= this.answers.length - 1) {
      this.playing = false;
      this.onEnd?.();
    }
    this.tell();
    requestAnimationFrame(this.tick);
  };

  private async feed(): Promise<void> {
    const clip = this.clip;
    if (this.feeding || clip === null) return;
    this.feeding = true;
    const generation = this.generation;
    try {
      this.session ??= new Session(this.model.name, { every: true, topK: 3, hz: clip.hz }, this.at?.session_id ?? null);
      this.at = null;
      const piece = clip.frames.slice(this.sent, this.sent + PIECE * Math.ceil(this.speed));
      const persons = this.version.persons ?? 1;
      const result = await this.session.feed(persons > 1 ? piece.map((frame) => [frame]) : piece);
      if (generation !== this.generation) return;
      this.take(piece, result.scores ?? [], result.predictions[0]?.label);
      this.warnings = result.warnings.slice();
      this.sent += piece.length;
      if (this.sent >= clip.frames.length) {
        this.clips.at(-1)!.to = this.frames.length;
        this.clip = null;
      }
    } catch (error) {
      if (generation !== this.generation || (error instanceof ServiceError && error.code === "closed")) return;
      this.error = error;
      this.playing = false;
      this.clip = null;
    } finally {
      this.feeding = false;
      this.tell();
    }
  }

  /** Put the answers behind those there are. At another rate than the model's there are fewer or more of them than frames. */
  private take(piece: Clip["frames"], rows: readonly (readonly number[])[], told: string | undefined): void {
    const labels = this.version.labels ?? [];
    piece.forEach((frame, i) => {
      const row = rows[Math.floor(((i + 1) * rows.length) / piece.length) - 1] ?? this.scores.at(-1) ?? labels.map(() => 1 / labels.length);
      const found = answer(row, labels, this.version.other_below);
      this.frames.push(frame);
      this.scores.push(row);
      this.answers.push(told === OTHER ? { ...found, label: OTHER } : found);
    });
  }

  private tell(): void {
    this.changed.set(this.changed.value + 1);
  }
}

/** A stream of motions through one session: what was sent, what was answered, and where the eye is. */
import { Session } from "../connection.ts";
import { newest } from "../desk.ts";
import { LocalFrames, type Told } from "../local/frames.ts";
import { Observable } from "../observable.ts";
import { ServiceError, download, model as describe, type Model, type SessionInfo, type Version } from "../service.ts";
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

/** A frame as it is taken: as it is sent, as it is shown in the model's own joints, and the second of it. */
export interface Taken {
  sent: Clip["frames"][number];
  shown: Clip["frames"][number];
  seconds: number;
}

/** A source of frames that is under way, how it measures them, and what waits to be sent. */
interface Live {
  name: string;
  options: { layout: string; axes: string };
  waiting: Taken[];
}

const LATE = 5; // seconds without a frame after which a live source begins anew

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
  /** where the frames are read in the browser itself: by whom, and after which step the server's session was left */
  local: { reader: LocalFrames; left: number } | null = null;
  /** between the server and the browser */
  moving = false;
  /** why the frames cannot be read elsewhere; the run itself goes on */
  refusal: unknown = null;
  readonly changed = new Observable(0);
  private session: Session | null = null;
  /** a session of somebody's that was opened here, until another is begun; it is not deleted when it is left */
  handed: SessionInfo | null;
  private clip: Clip | null = null;
  private live: Live | null = null;
  private sent = 0;
  private feeding = false;
  /** the step that is under way, or was the last */
  private fed: Promise<void> = Promise.resolve();
  private ticking = false;
  private before = 0;
  private generation = 0;
  /** whether the session's frames came with their moments, in a live source's joints and axes: nothing else can go into it */
  timed = false;
  /** the second of the last live frame */
  private last: number | null = null;
  onEnd: (() => void) | null = null;

  constructor(
    public model: Model,
    private at: SessionInfo | null = null,
  ) {
    this.handed = at;
  }

  get version(): Version {
    const own = this.session?.version ?? this.handed?.version;
    return this.model.versions.find((v) => v.version === own) ?? newest(this.model);
  }

  /** Take a model's whole description; the list of models has less. */
  learn(model: Model): void {
    this.model = model;
    this.tell();
  }

  /** Whether a clip begins another session. */
  beginsAnew(hz: number, anew: boolean): boolean {
    return anew || this.timed || (this.frames.length > 0 && hz !== this.hz) || this.frames.length > KEPT;
  }

  /** The version that a clip goes into. */
  versionFor(hz: number, anew: boolean): Version {
    return this.beginsAnew(hz, anew) ? newest(this.model) : this.version;
  }

  get shown(): number {
    return Math.min(this.answers.length - 1, Math.floor(this.cursor));
  }

  get running(): boolean {
    return this.clip !== null || this.live !== null;
  }

  /** Whether frames are taken as they come. */
  get following(): boolean {
    return this.live !== null;
  }

  get position(): number {
    return this.local?.reader.position ?? this.session?.position ?? 0;
  }

  /** Whether there is a session to be moved, and nothing that only the server follows. */
  get movable(): boolean {
    return this.session !== null && this.live === null;
  }

  /** Take the state down and go on in the browser, without the server. What a live source fed is left for another session, at its start. */
  goHere(): Promise<void> {
    if (this.timed) {
      this.begin();
      this.session = this.opening(this.hz);
    }
    return this.move(async (session) => {
      const { state } = await download(await session.open());
      const known = await describe(this.model.name);
      const reader = await LocalFrames.of(known, await state.arrayBuffer());
      return { reader, left: reader.step };
    });
  }

  /** Put the state back on the server, and go on there. Waits for the connection; what was read here is not lost meanwhile. */
  goBack(): Promise<void> {
    return this.move(async (session) => {
      const here = this.local!;
      if (here.reader.step !== here.left) await session.replace(here.reader.write(), here.left);
      return null;
    });
  }

  /** Change the place where frames are read, between two steps. */
  private async move(act: (session: Session) => Promise<Run["local"]>): Promise<void> {
    const { session, generation } = this;
    if (session === null || this.moving) return;
    this.moving = true;
    this.refusal = null;
    this.tell();
    try {
      await this.fed;
      const there = await act(session);
      if (generation === this.generation) this.local = there;
    } catch (error) {
      if (generation === this.generation && !(error instanceof ServiceError && error.code === "closed")) this.refusal = error;
    } finally {
      this.moving = false;
      this.tell();
    }
  }

  /** Play a clip behind what was played, in the same session; `anew` begins another session. */
  play(clip: Clip, anew: boolean): void {
    if (this.beginsAnew(clip.hz, anew)) this.begin();
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

  /** Follow a live source, from the start of a sequence: its frames say when they were taken, which a session does from its first on. */
  follow(name: string, options: Live["options"]): void {
    this.begin();
    this.hz = this.version.hz ?? 30;
    this.timed = true;
    this.live = { name, options, waiting: [] };
    this.clips.push({ name, from: 0, to: null });
    this.playing = true;
    this.tell();
  }

  /** Take a live frame. What comes while another step is under way goes into one step behind it. */
  see(taken: Taken): void {
    const live = this.live;
    if (live === null) return;
    if (this.frames.length > KEPT || taken.seconds - (this.last ?? taken.seconds) > LATE) this.follow(live.name, live.options);
    this.last = taken.seconds;
    this.live!.waiting.push(taken);
    void this.feedLive();
  }

  /** End following; what was seen stays, and its session takes nothing more. */
  leave(): void {
    if (this.live === null) return;
    this.live = null;
    this.playing = false;
    this.last = null;
    this.clips.at(-1)!.to = this.frames.length;
    this.tell();
  }

  resume(): void {
    if (this.live !== null) {
      this.playing = true;
      this.cursor = Math.max(0, this.answers.length - 1);
      this.tell();
      return;
    }
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
    this.live = null;
    this.timed = false;
    this.last = null;
    this.local = null;
    this.refusal = null;
    this.cursor = 0;
    this.playing = false;
    this.error = null;
    this.tell();
  }

  clearRefusal(): void {
    this.refusal = null;
    this.tell();
  }

  close(): void {
    const left = this.session;
    this.session = null;
    if (this.handed === null) left?.forget();
    else left?.close();
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
    if (!this.playing || this.live !== null) {
      this.ticking = false;
      return;
    }
    const passed = Math.min(0.25, (now - this.before) / 1000);
    this.before = now;
    this.cursor = Math.min(this.answers.length - 1, this.cursor + passed * this.hz * this.speed);
    if (this.clip !== null && this.answers.length - this.cursor < AHEAD * Math.max(1, this.speed)) this.next();
    if (this.clip === null && this.cursor >= this.answers.length - 1) {
      this.playing = false;
      this.onEnd?.();
    }
    this.tell();
    requestAnimationFrame(this.tick);
  };

  private next(): void {
    if (this.clip !== null && !this.feeding && !this.moving) this.fed = this.feed(this.clip);
  }

  /** Have frames read by the server, or here. */
  private async read(piece: Clip["frames"], hz: number): Promise<Told> {
    if (this.local !== null) return this.local.reader.feed(piece, hz);
    this.session ??= this.opening(hz);
    const result = await this.session.feed((this.version.persons ?? 1) > 1 ? piece.map((frame) => [frame]) : piece);
    return { scores: (result.scores ?? []).map((row) => row.slice()), label: result.predictions[0]?.label ?? "", warnings: result.warnings.slice() };
  }

  private opening(hz: number): Session {
    const made = new Session(this.model.name, { every: true, topK: 3, hz }, this.at?.session_id ?? null);
    this.at = null;
    return made;
  }

  private async feed(clip: Clip): Promise<void> {
    this.feeding = true;
    const generation = this.generation;
    try {
      const piece = clip.frames.slice(this.sent, this.sent + PIECE * Math.ceil(this.speed));
      const told = await this.read(piece, clip.hz);
      if (generation !== this.generation) return;
      this.take(piece, told.scores, told.label);
      this.warnings = told.warnings;
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

  private async feedLive(): Promise<void> {
    const live = this.live;
    if (this.feeding || live === null || live.waiting.length === 0) return;
    this.feeding = true;
    const generation = this.generation;
    const taken = live.waiting.splice(0);
    try {
      this.session ??= new Session(this.model.name, { every: true, topK: 3, ...live.options });
      const sent = taken.map((one) => one.sent);
      const result = await this.session.feed((this.version.persons ?? 1) > 1 ? sent.map((frame) => [frame]) : sent, {
        t: taken.map((one) => one.seconds),
      });
      if (generation !== this.generation) return;
      const rows = result.scores ?? []; // one for each frame of the model's rate that has passed
      this.take(rows.map((_, i) => taken[Math.ceil(((i + 1) * taken.length) / rows.length) - 1]!.shown), rows, result.predictions[0]?.label);
      this.warnings = result.warnings.slice();
      if (this.playing) this.cursor = Math.max(0, this.answers.length - 1);
    } catch (error) {
      if (generation !== this.generation || (error instanceof ServiceError && error.code === "closed")) return;
      this.leave();
      this.error = error;
    } finally {
      this.feeding = false;
      this.tell();
    }
    void this.feedLive();
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

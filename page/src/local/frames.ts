/** A session of skeletons that goes on in the browser: what the service does with frames, the same graph, the same state. */
import { OTHER, answer } from "../action/sureness.ts";
import type { Model, Version } from "../service.ts";
import { Anatomy, ENTRIES, fromHex, toHex, wordsOf } from "./anatomy.ts";
import { hold } from "./joints.ts";
import { resample, stride, type Carry } from "./rate.ts";
import { NotHere, needRoom, softmax, versionOf } from "./refusals.ts";
import { Graph, type Ran } from "./runtime.ts";
import { readState, writeState, type StateFile } from "./state_file.ts";

type Frame = readonly (readonly number[] | null)[];

/** What comes of frames: scores [T][K] at the model's rate; the last label; what the service would warn of. */
export interface Told {
  scores: number[][];
  label: string;
  warnings: string[];
}

const FARTHEST = 50; // metres, as frames/joints.py has it

export class LocalFrames {
  private constructor(
    private readonly graph: Pick<Graph, "runNumbers">,
    private readonly version: Version,
    private file: StateFile,
    private readonly anatomy: Anatomy | null,
  ) {}

  /** Load the version that a state is of and go on from the state. Throws NotHere where only the service can. */
  static async of(model: Model, state: ArrayBuffer): Promise<LocalFrames> {
    const file = readState(state);
    const version = versionOf(model, file);
    refuse(version, file);
    return LocalFrames.with(await Graph.of(model.name, version), version, state);
  }

  static with(graph: Pick<Graph, "runNumbers">, version: Version, state: ArrayBuffer): LocalFrames {
    const file = readState(state);
    refuse(version, file);
    const names = version.layouts?.[version.layout!]?.joint_names ?? [];
    return new LocalFrames(graph, version, file, version.bodies ? new Anatomy(names, version.bodies, version.hz!) : null);
  }

  get step(): number {
    return Number(this.file.metadata["step"]);
  }

  get position(): number {
    return Number(this.file.metadata["position"]);
  }

  /** Take frames [T] of the model's joints in metres, at a rate, as one step. Where it throws, nothing has moved. */
  async feed(frames: readonly Frame[], hz: number): Promise<Told> {
    const own = this.version.hz!;
    const running = this.carry?.hz ?? own;
    if (this.position > 0 && running !== hz) throw new NotHere(`Expected ${running} frames a second as in the session's earlier steps, got ${hz}.`);
    const most = this.version.limits.max_position;
    const by = stride(hz, own);
    needRoom(this.position + frames.length, most === null ? null : Math.floor((most * by[0]) / by[1]));
    const sent = frames.map((frame) => this.dense(frame));
    const held = hold(sent, this.carry?.frame ?? this.last(this.file.state), this.persons);
    const made = hz === own ? null : resample(held.frames, hz, own, this.carry, this.persons);
    const x = made?.frames ?? held.frames;
    const lost = made === null ? held.lost : made.after.map((i) => held.lost[i]!);
    const ran = x.length > 0 ? await this.graph.runNumbers(x, this.file.state) : { logits: [], state: this.file.state };
    if (!ran.state.every((v) => Number.isFinite(v))) throw new Error("The state became infinite. Nothing of these frames was kept.");
    const evidence = this.evidence();
    x.forEach((frame, t) => this.look(t === 0 ? this.last(this.file.state) : x[t - 1]!, frame, lost[t]!, evidence));
    const metadata: Record<string, string> = { ...this.file.metadata, step: String(this.step + 1), position: String(this.position + frames.length) };
    if (this.anatomy !== null) metadata["bodies"] = toHex(evidence);
    if (made !== null) {
      metadata["carry_hz"] = String(hz);
      metadata["carry_phase"] = made.carry.phase.join("/");
    }
    this.file = { metadata, state: ran.state, ...(made !== null && { carry: made.carry.frame }) };
    return this.told(ran, evidence);
  }

  /** The state as a file. */
  write(): Uint8Array<ArrayBuffer> {
    return writeState(this.file, [this.persons, this.joints, 3]);
  }

  private get persons(): number {
    return this.version.persons ?? 1;
  }

  private get joints(): number {
    return this.version.layouts![this.version.layout!]!.joints;
  }

  private get carry(): Carry | null {
    const { metadata, carry } = this.file;
    if (carry === undefined) return null;
    const [n, d] = metadata["carry_phase"]!.split("/").map(Number) as [number, number];
    return { hz: Number(metadata["carry_hz"]), frame: carry, phase: [n, d] };
  }

  /** A frame [P][J][3]; joints that are null are NaN, persons that are not sent are zeros. */
  private dense(frame: Frame): Float32Array {
    const x = new Float32Array(this.persons * this.joints * 3);
    if (frame.length !== this.joints) throw new NotHere(`Expected ${this.joints} joints, got ${frame.length}.`);
    frame.forEach((joint, j) => {
      const place = joint === null ? [NaN, NaN, NaN] : [joint[0]!, joint[1]!, this.version.dims === 2 ? 0 : joint[2]!];
      const far = place.find((v) => Math.abs(v) > FARTHEST);
      if (far !== undefined) throw new NotHere(`Expected metres within ±${FARTHEST}, got ${far}.`);
      x.set(place, 3 * j);
    });
    return x;
  }

  /** The frame that a state ends with. */
  private last(state: Float32Array): Float32Array {
    const { offset, size } = this.version.state.find((part) => part.role === "last_frame")!;
    return state.slice(offset, offset + size);
  }

  private evidence(): Float32Array {
    const held = this.file.metadata["bodies"];
    return held ? fromHex(held) : new Float32Array(ENTRIES * this.persons);
  }

  private look(before: Float32Array, frame: Float32Array, lost: readonly boolean[], evidence: Float32Array): void {
    const [J, size] = [this.joints, 3 * this.joints];
    for (let p = 0; p < this.persons; p++) {
      const of = (x: Float32Array) => x.subarray(p * size, (p + 1) * size);
      this.anatomy?.look(of(before), of(frame), lost.slice(p * J, (p + 1) * J), evidence.subarray(p * ENTRIES, (p + 1) * ENTRIES));
    }
  }

  private told({ logits, state }: Ran, evidence: Float32Array): Told {
    const persons = Array.from({ length: this.persons }, (_, p) => evidence.subarray(p * ENTRIES, (p + 1) * ENTRIES));
    const doubts = [...new Set([...persons.flatMap((one) => this.anatomy?.doubts(one) ?? []), ...(this.anatomy?.absence(persons) ?? [])])];
    const scores = logits.map(softmax);
    const before = this.version.state.find((part) => part.role === "last_logits")!;
    const last = scores.at(-1) ?? softmax(state.slice(before.offset, before.offset + before.size));
    const found = answer(last, this.version.labels ?? [], this.version.other_below);
    return { scores, label: doubts.length > 0 ? OTHER : found.label, warnings: wordsOf(doubts) };
  }
}

/** Throw where the browser cannot do what the service does. */
function refuse(version: Version, { metadata }: StateFile): void {
  if (version.events) throw new NotHere("This model tells motions as events, which only the service does.");
  if (metadata["carry_times"] !== undefined) throw new NotHere("What a camera sees is brought to the model's rate by its moments, which only the service does.");
  if (version.hz === null || version.layout === null || !version.state.some((part) => part.role === "last_frame")) {
    throw new NotHere("This model's bundle does not say what the browser would need of it.");
  }
}

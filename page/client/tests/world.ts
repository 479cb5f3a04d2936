/** A made-up server of one session, a network that loses things, and a clock: what the client's core is driven against. */

import type { Char } from "../src/answers.js";
import { type Command, Lost, type Outcome, type Plan } from "../src/commands.js";
import { Patience } from "../src/patience.js";

type Message = Record<string, unknown>;

/** Numbers from 0 to 1 that a seed determines (mulberry32). */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `low` to `high`. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(items: readonly T[]): T {
    return items[this.integer(0, items.length - 1)] as T;
  }
}

/** What a generate of that number draws at that place; some are two UTF-16 units. */
export function letter(step: number, i: number): string {
  return ["a", "b", "c", "d", "e", "f", "𝄞", "é"][(step * 31 + i * i * 7 + i) % 8] as string;
}

export function drawn(step: number, length: number): string {
  return Array.from({ length }, (_, i) => letter(step, i)).join("");
}

interface Generate {
  request: Message;
  text: string[];
  reason?: string;
}

/** `faults` more things go wrong, each time with probability `rate`. */
export class World {
  rate = 0.3;
  down = false;
  now = 0;
  step = 0;
  position = 0;
  readonly history: string[] = [];
  last = "";
  reply: Message = {};
  generate: Generate | undefined;
  inbox: Message[] = [];
  connected = false;
  active = false;
  watching = false;
  telling = false;
  connects = 0;
  busy = 0;
  raw: string | undefined;

  constructor(
    readonly random = new Chance(0),
    public faults = 0,
  ) {}

  // --- the network -------------------------------------------------------------------------------------------------------------------

  fault(): boolean {
    if (!this.faults || this.random.next() >= this.rate) return false;
    this.faults -= 1;
    return true;
  }

  /** The connection is gone; what the server was doing goes on for a little. */
  cut(): Lost {
    if (this.active) for (let i = this.random.integer(0, 2); i > 0; i--) this.emit();
    this.connected = this.active = this.watching = false;
    this.inbox = [];
    return new Lost(new Error("cut"));
  }

  perform(command: Command): Outcome {
    switch (command.kind) {
      case "sleep":
        this.now += command.seconds;
        return undefined;
      case "connect":
        this.cut();
        this.connects += 1;
        if (this.down || this.fault()) {
          this.now += 0.001;
          return new Lost(new Error("refused"));
        }
        this.connected = true;
        return undefined;
      case "close":
        this.cut();
        return undefined;
      case "send":
        if (!this.connected) return new Lost(new Error("not connected"));
        if (this.fault()) return this.cut();
        this.take(JSON.parse(command.text) as Message);
        return this.fault() ? this.cut() : undefined;
      case "receive":
        if (!this.connected) return new Lost(new Error("not connected"));
        return this.give(command.timeout);
      default:
        throw new Error(`no ${command.kind} in a stream`);
    }
  }

  give(timeout: number): Outcome {
    if (this.raw !== undefined) return this.raw;
    if (this.fault()) return this.cut();
    if (!this.inbox.length && this.active) this.emit();
    const message = this.inbox.shift();
    if (message) return JSON.stringify(message);
    this.now += timeout;
    return new Lost(new Error("nothing came"));
  }

  // --- the server --------------------------------------------------------------------------------------------------------------------

  take({ type: kind, ...message }: Message): void {
    if (this.busy || this.fault()) {
      const code = this.busy ? "overloaded" : this.random.pick(["overloaded", "store_failed", "stopping"]);
      if (this.busy && kind !== "cancel") this.busy -= 1;
      if (kind !== "cancel") this.inbox.push({ type: "error", code, detail: "not now", retry_after: 1 }); // a cancel has no answer of its own
      if (kind !== "cancel" || code === "stopping") return;
    }
    if (kind === "open") {
      this.telling = message.events === true;
      const cut = this.generate && this.generate.reason === undefined ? this.generate : undefined;
      const pending = cut ? { step: this.step, text: cut.text.join("") } : null;
      this.inbox.push({ type: "opened", session_id: "s", step: this.step, position: this.position, model: "m", version: "1", pending });
    } else if (kind === "watch") {
      this.watching = message.neurons === true;
      this.inbox.push({ type: "watching", parts: this.watching ? [{ layer: 0, size: 2, activation: "relu" }] : [] });
    } else if (kind === "cancel") {
      if (this.generate && this.generate.reason === undefined && message.step === this.step) this.end("cancelled");
    } else this.numbered(String(kind), message);
  }

  numbered(kind: string, message: Message): void {
    const at = message.step as number;
    const same = JSON.stringify([kind, message]);
    if (at === this.step && same === this.last) this.repeat();
    else if (at === this.step) this.inbox.push({ type: "error", code: "step_conflict", detail: "other content", field: "step" });
    else if (at !== this.step + 1) {
      this.inbox.push({ type: "error", code: "step_gap", detail: "gap", field: "step", expected_step: this.step + 1 });
    } else if (kind === "step") this.feed(at, message, same);
    else {
      this.step = at;
      this.last = same;
      this.generate = { request: message, text: [] };
      this.active = true;
      this.history.push(`generate ${at}`);
    }
  }

  feed(at: number, message: Message, same: string): void {
    const text = message.text as string;
    if (text === "bad") {
      this.inbox.push({ type: "error", code: "invalid_input", detail: "bad", field: "text" });
      return;
    }
    this.generate = undefined;
    this.step = at;
    this.last = same;
    this.position += text.length;
    this.history.push(text);
    this.reply = { type: "result", step: at, position: this.position, chars: Array.from(text).map((c) => ({ char: c, logprob: -1 })), next: [] };
    this.tell(text);
    this.inbox.push({ ...this.reply, ...(this.watching && { states: "ADwAwA==", shape: [1, 2] }) }); // states: no part of what is stored
  }

  /** As many events as there are x in the step's text. */
  tell(text: string): void {
    for (const [i, c] of this.telling ? Array.from(text).entries() : []) {
      if (c === "x") this.inbox.push({ type: "event", step: this.step, label: "x", start: i, at: i, score: 1 });
    }
  }

  repeat(): void {
    if (!this.generate) {
      this.tell(this.history.at(-1) as string);
      this.inbox.push({ ...this.reply });
      return;
    }
    for (const c of this.generate.text) this.inbox.push({ type: "char", step: this.step, char: c, logprob: -1 });
    if (this.generate.reason === undefined) this.active = true;
    else this.inbox.push({ type: "done", step: this.step, position: this.position, reason: this.generate.reason });
  }

  emit(): void {
    const g = this.generate;
    if (!g || g.reason !== undefined) return;
    const c = letter(this.step, g.text.length);
    g.text.push(c);
    this.position += 1;
    this.inbox.push({ type: "char", step: this.step, char: c, logprob: -1 });
    if (g.text.length === g.request.max_chars) this.end("length");
  }

  end(reason: string): void {
    (this.generate as Generate).reason = reason;
    this.active = false;
    this.inbox.push({ type: "done", step: this.step, position: this.position, reason });
  }

  // --- a shell -----------------------------------------------------------------------------------------------------------------------

  patience(seconds = 10_000): Patience {
    const chance = new Chance(0);
    return new Patience(seconds, () => this.now, () => chance.next());
  }

  run<R>(plan: Plan<R>): R {
    let outcome: Outcome = undefined;
    for (;;) {
      const turn: IteratorResult<Command, R> = plan.next(outcome);
      if (turn.done) return turn.value;
      outcome = this.perform(turn.value);
    }
  }

  /** Up to so many of a generate's characters; the rest stays where it is. */
  characters(running: Plan<void> | undefined, most = Number.POSITIVE_INFINITY): Char[] {
    if (!running) throw new Error("a generate that was begun runs");
    const shown: Char[] = [];
    let outcome: Outcome = undefined;
    while (shown.length < most) {
      const turn: IteratorResult<Command, void> = running.next(outcome);
      if (turn.done) break;
      if (turn.value.kind === "show") {
        shown.push(turn.value.char);
        outcome = undefined;
      } else outcome = this.perform(turn.value);
    }
    return shown;
  }
}

/**
 * One session over WS /stream/{model}, without any I/O: numbers the steps, and gets each of them applied exactly once.
 *
 * A message that has no answer yet is kept. When the connection is lost, or the server says that it cannot now, the plan waits, connects
 * again, opens the same session and sends the same message with the same number: the server applies it, or answers it from its store. Of a
 * generate that is repeated, the characters that the user has seen are left out.
 */

import { char, event, type MotionEvent, number, type Part, parts, type Pending, pending, type Result, result, text } from "./answers.js";
import { type Command, Lost, type Outcome, type Plan } from "./commands.js";
import { ClientError, Conflict, NotFound, ProtocolError, Refused, refused, SessionExpired, TRANSIENT, Unanswered } from "./errors.js";
import { type Body, decode, encode } from "./messages.js";
import type { Patience } from "./patience.js";

const CONNECT_WITHIN = 10; // seconds of one try: a server that is there answers at once
const SILENCE = 20; // seconds without a message after which a connection counts as dead: a browser's script can send no ping
const CANCEL = "cancelled";

/** The connection is of no more use; `pause` is what the server asked for, in seconds. */
class Broken extends Error {
  constructor(
    override readonly cause: Error,
    readonly pause = 0,
  ) {
    super(cause.message);
  }
}

/** The server cannot now; the connection is sound. */
class TryLater extends Broken {}

/** The reason for which a generate ended. */
export type Reason = "length" | "stop" | "cancelled";

/** A generate as far as it has come. `reason` is set once it has ended; `running` shows the rest. */
export class Emission {
  running: Plan<void> | undefined;
  readonly drawn: string[] = [];
  reason: Reason | undefined;
  seen = 0;
  cancelling = false;
  started = false;
  sent = false;
  failed = false;

  constructor(
    readonly number: number,
    readonly request: string,
    public patience: Patience,
  ) {}

  /** The characters that the session has consumed. */
  get text(): string {
    return this.drawn.join("");
  }
}

/** The state of one session as its client knows it. One call at a time; only `cancel` may come between. */
export class Conversation {
  sessionId: string | undefined;
  model = "";
  version = "";
  step = 0;
  position = 0;
  pending: Pending | undefined;
  parts: Part[] = [];
  /** whether the session is open on the shell's connection */
  linked = false;
  readonly #url: string;
  readonly #opening: Body;
  #opened = false;
  #watching = false;
  #unanswered: string | undefined;
  #sent = false;
  #links = 0;
  #emission: Emission | undefined;

  /** opening: the fields of `open` that are not null. */
  constructor(url: string, opening: Body, sessionId?: string) {
    this.#url = url;
    this.#opening = opening;
    this.sessionId = sessionId;
  }

  // --- what a shell runs -------------------------------------------------------------------------------------------------------------

  /** Connect, and open the session or find out where it stands. */
  *open(patience: Patience): Plan<void> {
    yield* this.#persist(patience, () => this.#link(patience));
  }

  /** Take one step. Throws Refused, DeadlineExceeded, Unanswered. */
  *feed(content: Body, wanted: number | undefined, patience: Patience): Plan<Result> {
    yield* this.#beReady(patience);
    const at = wanted ?? this.step + 1;
    const request = encode({ type: "step", step: at, ...content });
    this.#claim(request);
    let answer: Result;
    try {
      answer = yield* this.#persist(patience, () => this.#askStep(request, patience));
    } catch (error) {
      if (this.#answers(error)) this.#unanswered = undefined;
      throw error;
    }
    if (answer.step !== at) throw new ProtocolError(`expected the result of step ${at}, got that of ${answer.step}`);
    this.#unanswered = undefined;
    this.step = at;
    this.position = answer.position;
    this.pending = undefined;
    return answer;
  }

  /**
   * Run a generate; its `running` shows each character once, and ends with it. The deadline is for the next character.
   *
   * One that failed with the same wish goes on with its number, and is shown from its first character.
   */
  *begin(wish: Body, wanted: number | undefined, patience: Patience): Plan<Emission> {
    const before = this.#emission;
    if (before?.failed && !before.cancelling) {
      const again = wanted ?? before.number;
      if (encode({ type: "generate", step: again, ...wish }) === before.request) {
        return this.#start(new Emission(again, before.request, patience));
      }
    }
    yield* this.#beReady(patience);
    const at = wanted ?? this.step + 1;
    return this.#start(new Emission(at, encode({ type: "generate", step: at, ...wish }), patience));
  }

  /** End a generate that was left before its end; its text then holds what the session has consumed. */
  *settle(patience: Patience): Plan<void> {
    const left = this.#emission;
    if (!left || (left.failed && !left.cancelling)) return;
    if (!left.started) {
      this.#unanswered = this.#emission = undefined;
      return;
    }
    if (left.failed) {
      left.patience = patience;
      left.running = this.#emit(left);
      left.failed = false;
    }
    left.patience.renew();
    const urgent = this.cancel();
    if (urgent !== undefined) yield { kind: "send", text: urgent, timeout: patience.left() };
    const running = left.running as Plan<void>; // what was started runs
    try {
      let outcome: Outcome = undefined;
      for (;;) {
        const turn: IteratorResult<Command, void> = running.next(outcome);
        if (turn.done) return;
        outcome = turn.value.kind === "show" ? undefined : yield turn.value;
      }
    } finally {
      running.return();
    }
  }

  /** Want the generate ended. Return what has to be sent at once, where it is under way on this connection. */
  cancel(): string | undefined {
    const emission = this.#emission;
    if (!emission || emission.reason !== undefined) return undefined;
    emission.cancelling = true;
    return this.linked && emission.sent ? cancelOf(emission) : undefined;
  }

  /** Choose whether results and characters from now on carry the neurons. */
  *watch(neurons: boolean, patience: Patience): Plan<Part[]> {
    yield* this.settle(patience);
    const before = this.#watching;
    this.#watching = neurons;
    try {
      yield* this.#persist(patience, () => this.#rewatch(patience));
    } catch (error) {
      if (error instanceof Refused) this.#watching = before;
      throw error;
    }
    return this.parts;
  }

  /** Whether a generate is under way, which connects again by itself. */
  get emitting(): boolean {
    return this.#emission?.started === true && !this.#emission.failed;
  }

  /** Return another session of the model, with the same options. */
  of(sessionId: string): Conversation {
    return new Conversation(this.#url, this.#opening, sessionId);
  }

  /** Take note that the shell has dropped the connection, or lost it. */
  lost(): void {
    this.linked = false;
  }

  /** Throw Unanswered where a step is under way. Ask this before the session is put elsewhere on the server. */
  needAnswers(): void {
    if (this.#unanswered !== undefined) {
      throw new Unanswered(`step ${this.#numberAsked()} has no answer yet: make the same call again first`, { code: "unanswered" });
    }
  }

  /** Stand elsewhere: the session was reset, or a state uploaded. */
  stand(step: number, position: number): void {
    this.step = step;
    this.position = position;
    this.pending = undefined;
  }

  /** Return the number of a rewind that is about to be sent, or sent again. Throws Unanswered where another step is under way. */
  claimRewind(to: Body): number {
    const at = this.step + 1;
    this.#claim(encode({ type: "rewind", step: at, to }));
    return at;
  }

  /** Take the answer to the rewind: the session stands there. */
  rewound(step: number, position: number): void {
    this.#unanswered = undefined;
    this.stand(step, position);
  }

  /** Take the refusal of the rewind, which has moved nothing. */
  notRewound(): void {
    this.#unanswered = undefined;
  }

  // --- a generate --------------------------------------------------------------------------------------------------------------------

  #start(emission: Emission): Emission {
    this.#claim(emission.request);
    this.#emission = emission;
    emission.running = this.#emit(emission);
    return emission;
  }

  *#emit(emission: Emission): Plan<void> {
    emission.started = true;
    let ended = false;
    try {
      yield* this.#persist(emission.patience, () => this.#tryToEmitOrReconnect(emission, emission.patience));
      ended = true;
    } catch (error) {
      ended = this.#answers(error);
      throw error;
    } finally {
      // also where the shell has dropped the plan
      if (ended) this.#unanswered = this.#emission = undefined;
      else emission.failed = true;
    }
  }

  /**
   * Try to emit; where the server cannot now and a cancel was asked for, throw Broken to reconnect.
   *
   * A cancel behind the generate may still end what is stored: its `done` is not the next try's.
   */
  *#tryToEmitOrReconnect(emission: Emission, patience: Patience): Plan<void> {
    emission.sent = false;
    try {
      yield* this.#tryToEmit(emission, patience);
    } catch (error) {
      if (error instanceof TryLater) {
        emission.sent = false; // a cancel from now on goes with the next try
        if (emission.cancelling) throw new Broken(error.cause, error.pause);
      }
      throw error;
    }
  }

  *#tryToEmit(emission: Emission, patience: Patience): Plan<void> {
    yield* this.#link(patience);
    this.#sent = true;
    yield* say(emission.request, patience);
    emission.sent = true;
    if (emission.cancelling) yield* say(cancelOf(emission), patience);
    const here = this.#links;
    let count = 0;
    for (;;) {
      if (here !== this.#links) throw new Broken(new Error("the session was opened anew")); // while its user looked at a character
      let body: Body;
      try {
        body = yield* hear(["char", "done"], patience);
      } catch (error) {
        if (!(error instanceof Conflict) || error.code !== CANCEL || !emission.cancelling) throw error;
        emission.reason = CANCEL; // it had not begun: its number is free
        return;
      }
      if (body.type === "done") {
        this.#ended(emission, count, body);
        return;
      }
      const drawn = read(char, body);
      this.step = emission.number;
      count += 1;
      if (count > emission.drawn.length) emission.drawn.push(drawn.char);
      else if (emission.drawn[count - 1] !== drawn.char) {
        throw new ProtocolError(`expected character ${count} of step ${emission.number} again, got another`);
      }
      if (count > emission.seen) {
        emission.seen = count;
        yield { kind: "show", char: drawn };
        patience.renew();
      }
    }
  }

  #ended(emission: Emission, count: number, body: Body): void {
    const { step, position, reason } = read((b) => ({ step: number(b.step), position: number(b.position), reason: text(b.reason) }), body);
    if (step !== emission.number || count !== emission.drawn.length) {
      const drawn = `${emission.drawn.length} characters`;
      throw new ProtocolError(`expected the end of step ${emission.number} after ${drawn}, got that of ${step} after ${count}`);
    }
    emission.reason = reason as Reason;
    this.step = emission.number;
    this.position = position;
    this.pending = undefined;
  }

  // --- messages ----------------------------------------------------------------------------------------------------------------------

  /** Return the step number of the message that has no answer yet. */
  #numberAsked(): number {
    return Number(decode(this.#unanswered ?? "{}").step ?? this.step + 1);
  }

  #claim(request: string): void {
    if (this.#unanswered !== undefined && this.#unanswered !== request) {
      const why = "has no answer yet, and this is another: make the same call again first";
      throw new Unanswered(`step ${this.#numberAsked()} ${why}`, { code: "unanswered" });
    }
    if (this.#unanswered === undefined) this.#sent = false;
    this.#unanswered = request;
  }

  /** Whether an error tells what became of the message. One that met the way back to the session does not, if it had been sent before. */
  #answers(error: unknown): boolean {
    return error instanceof Refused && (this.linked || !this.#sent || error instanceof SessionExpired || error instanceof NotFound);
  }

  /** Send a step and return its result, with the events that come before it: of this try, which tells all of them. */
  *#askStep(request: string, patience: Patience): Plan<Result> {
    yield* this.#link(patience);
    this.#sent = true;
    yield* say(request, patience);
    const events: MotionEvent[] = [];
    for (;;) {
      const body = yield* hear(["event", "result"], patience);
      if (body.type === "result") return { ...read(result, body), events };
      events.push(read(event, body));
    }
  }

  *#rewatch(patience: Patience): Plan<void> {
    if (!this.linked) {
      yield* this.#link(patience); // watches by itself
      if (this.#watching) return;
    }
    yield* this.#sayWatch(patience);
  }

  *#sayWatch(patience: Patience): Plan<void> {
    yield* say(encode({ type: "watch", neurons: this.#watching }), patience);
    this.parts = read(parts, yield* hear(["watching"], patience));
  }

  /** For the next number: know where the session stands, with nothing under way. */
  *#beReady(patience: Patience): Plan<void> {
    if (!this.#opened) yield* this.open(patience);
    yield* this.settle(patience);
  }

  // --- the connection ----------------------------------------------------------------------------------------------------------------

  /** Try until it succeeds, is refused, or the deadline has passed. */
  *#persist<R>(patience: Patience, attempt: () => Plan<R>): Plan<R> {
    for (;;) {
      try {
        return yield* attempt();
      } catch (error) {
        if (error instanceof TryLater) {
          yield { kind: "sleep", seconds: patience.pause(error.cause, error.pause), cause: error.cause };
        } else if (error instanceof Broken) {
          this.linked = false;
          yield { kind: "close" };
          yield { kind: "sleep", seconds: patience.pause(error.cause, error.pause), cause: error.cause };
        } else {
          if (error instanceof ClientError && !(error instanceof Refused)) {
            this.linked = false; // an answer may still come, and must not be taken for the next one's
            yield { kind: "close" };
          }
          throw error;
        }
      }
    }
  }

  /** Connect and open, if that is not so. */
  *#link(patience: Patience): Plan<void> {
    if (this.linked) return;
    check(yield { kind: "connect", url: this.#url, timeout: Math.min(patience.left(), CONNECT_WITHIN) });
    const session = this.sessionId ? { session_id: this.sessionId } : {};
    // lost: the server has said why before it closed
    yield { kind: "send", text: encode({ type: "open", ...this.#opening, ...session }), timeout: patience.left() };
    let body: Body;
    try {
      body = yield* hear(["opened"], patience);
    } catch (error) {
      if (error instanceof TryLater) throw new Broken(error.cause, error.pause); // the server closes after it
      throw error;
    }
    this.linked = true;
    this.#links += 1;
    read((b) => this.#standAs(b), body);
    if (this.#watching) yield* this.#sayWatch(patience);
  }

  #standAs(body: Body): void {
    const id = text(body.session_id);
    if (this.#opened && id !== this.sessionId) throw new ProtocolError(`expected session ${this.sessionId}, got ${id}`);
    if (!this.#opened) {
      this.pending = pending(body);
      this.step = number(body.step);
      this.position = number(body.position);
    }
    this.#opened = true;
    this.sessionId = id;
    this.model = text(body.model);
    this.version = text(body.version);
  }
}

function* say(message: string, patience: Patience): Plan<void> {
  check(yield { kind: "send", text: message, timeout: patience.left() });
}

/** Receive the next message, of those kinds. Throws Refused, and what #persist catches. */
function* hear(kinds: readonly string[], patience: Patience): Plan<Body> {
  const raw = check(yield { kind: "receive", timeout: Math.min(patience.left(), SILENCE) });
  const body = decode(typeof raw === "string" ? raw : "");
  if (body.type === "error") throw wrong(body);
  if (!kinds.includes(String(body.type))) {
    throw new ProtocolError(`expected ${kinds.join(" or ")}, got ${JSON.stringify(body).slice(0, 80)}`);
  }
  return body;
}

function wrong(body: Body): Error {
  const error = refused(body);
  if (!TRANSIENT.has(error.code)) return error;
  const pause = typeof body.retry_after === "number" ? body.retry_after : 0;
  return error.code === "stopping" ? new Broken(error, pause) : new TryLater(error, pause);
}

/** Return the outcome of a command. Throws Broken where it was lost, or the cause itself where trying again would not help. */
function check(outcome: Outcome): Outcome {
  if (outcome instanceof Lost) throw outcome.final ? outcome.cause : new Broken(outcome.cause);
  return outcome;
}

function cancelOf(emission: Emission): string {
  return encode({ type: "cancel", step: emission.number });
}

function read<R>(reader: (body: Body) => R, body: Body): R {
  try {
    return reader(body);
  } catch (error) {
    if (error instanceof ClientError) throw error;
    throw new ProtocolError(`expected a message of its kind, got ${String(body.type)}: ${String(error)}`, { cause: error });
  }
}

/** The client: the core (conversation.ts, calls.ts) decides, this does, over WebSocket and fetch. Times are in seconds. */

import type { Char, Completed, Explained, ModelInfo, Part, Pending, Predicted, Result, SessionInfo } from "./answers.js";
import * as calls from "./calls.js";
import { type Command, type HttpRequest, HttpResponse, Lost, type Outcome, type Plan } from "./commands.js";
import { Conversation, type Emission, type Reason } from "./conversation.js";
import { ProtocolError, Refused } from "./errors.js";
import { type Body, encode, given } from "./messages.js";
import {
  type CallOptions,
  type CompleteOptions,
  type Content,
  contentOf,
  explaining,
  type ExplainOptions,
  type GenerateOptions,
  type Link,
  opening,
  predicting,
  type PredictOptions,
  type SessionOptions,
  type StepOptions,
  wish,
} from "./options.js";
import { Patience } from "./patience.js";
import { type Socket, type SocketMaker, Wire } from "./wire.js";

/** The options of a client. */
export interface ClientOptions {
  /** the key, where the service wants one */
  apiKey?: string | null;
  /** seconds that a call may take, connecting again and repeating included, where the call names no other; 60 where left out */
  timeout?: number | null;
  /** another `fetch` than the global one */
  fetch?: typeof fetch | null;
  /** another maker of WebSockets than the global one */
  socket?: SocketMaker | null;
}

let makeSocket: SocketMaker = (url) => new WebSocket(url) as unknown as Socket;

/** Have every client use other WebSockets than the global ones. */
export function useSockets(make: SocketMaker): void {
  makeSocket = make;
}

/**
 * Connect to a model and open a session, or go on with one. Throws NotFound, SessionExpired, DeadlineExceeded and their kin.
 *
 * url: http(s)://host[:port][/path]; in a browser also relative to the page, as ".".
 */
export async function connect(url: string, options: { model: string } & SessionOptions & ClientOptions): Promise<Session> {
  const { model, apiKey, fetch, socket, ...more } = options;
  return new Client(url, { ...given({ apiKey, fetch, socket }), timeout: more.timeout ?? null }).session(model, more);
}

/** A server. It holds no connection of its own. */
export class Client {
  /** the server's address, without a slash at its end */
  readonly url: string;
  readonly timeout: number;
  readonly apiKey: string | undefined;
  readonly #fetch: typeof fetch;
  readonly #socket: SocketMaker;

  constructor(url = "http://127.0.0.1:8000", options: ClientOptions = {}) {
    this.url = absolute(url);
    this.timeout = options.timeout ?? 60;
    this.apiKey = options.apiKey ?? undefined;
    this.#fetch = options.fetch ?? ((...asked) => globalThis.fetch(...asked));
    this.#socket = options.socket ?? ((address) => makeSocket(address));
  }

  /** Open a session, or go on with one. */
  async session(model: string, options: SessionOptions = {}): Promise<Session> {
    const address = `ws${this.url.slice("http".length)}/stream/${encodeURIComponent(model)}`;
    const fields = { ...given({ api_key: this.apiKey }), ...opening(options) };
    const session = new Session(this, new Conversation(address, fields, options.sessionId ?? undefined), options, this.#socket);
    try {
      await session.open();
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  /** Classify, by POST /predict. With a session, give `step`: without it a request whose answer was lost is not repeated. */
  predict(sequences: readonly unknown[], options: PredictOptions = {}): Promise<Predicted> {
    return this.run(calls.predict(sequences, predicting(options), this.patience(options.timeout)));
  }

  /** Tell what the answer to a whole sequence, of frames, rows or characters, depends on, of models whose bundle can (POST /explain). */
  explain(sequence: Content, options: ExplainOptions = {}): Promise<Explained> {
    return this.run(calls.explain(sequence, explaining(options), this.patience(options.timeout)));
  }

  /** Return every served model. */
  models(): Promise<readonly ModelInfo[]> {
    return this.run(calls.models(this.patience()));
  }

  /** Return the ONNX file of a model's version, the highest where none is named: to run it elsewhere. */
  graph(model: string, version?: string): Promise<Uint8Array> {
    return this.run(calls.graph(model, version, this.patience()));
  }

  /** Complete a prompt, as OpenAI's API has it; a token is a character. */
  complete(options: CompleteOptions): Promise<Completed> {
    const { timeout, ...wanted } = options;
    return this.run(calls.complete(given(wanted), this.patience(timeout)));
  }

  /** Open a session for `predict`. keep: how many states after earlier steps it keeps, to be rewound to. */
  newSession(model: string, options: { keep?: number } = {}): Promise<SessionInfo> {
    return this.run(calls.newSession(model, this.patience(), options.keep));
  }

  /** Open a session where a downloaded state stood. */
  newSessionAt(state: Uint8Array): Promise<SessionInfo> {
    return this.run(calls.newSessionAt(state, this.patience()));
  }

  /** Return one's own sessions, newest first. */
  sessions(limit = 100): Promise<SessionInfo[]> {
    return this.run(calls.sessions(limit, this.patience()));
  }

  /** Return where a session stands. */
  look(sessionId: string): Promise<SessionInfo> {
    return this.run(calls.look(sessionId, this.patience()));
  }

  /** End a session on the server. */
  delete(sessionId: string): Promise<void> {
    return this.run(calls.remove(sessionId, this.patience()));
  }

  /** Return a session's state as a file. */
  download(sessionId: string): Promise<Uint8Array> {
    return this.run(calls.download(sessionId, this.patience()));
  }

  /** Put a downloaded state in place of the session's. */
  upload(sessionId: string, state: Uint8Array): Promise<SessionInfo> {
    return this.run(calls.upload(sessionId, state, this.patience()));
  }

  /** Open a second session that stands where this one does. */
  fork(sessionId: string): Promise<SessionInfo> {
    return this.run(calls.fork(sessionId, this.patience()));
  }

  /** Put a session back at the start. */
  reset(sessionId: string): Promise<SessionInfo> {
    return this.run(calls.reset(sessionId, this.patience()));
  }

  /** Go back to a step or a mark, as one step. Give `number`: without it a request whose answer was lost is not repeated. */
  rewind(sessionId: string, to: { step?: number; mark?: string }, options: CallOptions = {}): Promise<SessionInfo> {
    return this.run(calls.rewind(sessionId, given(to), options.number ?? undefined, this.patience(options.timeout)));
  }

  /** Name the step where a session stands, or take the name away. */
  mark(sessionId: string, name: string, options: { remove?: boolean } = {}): Promise<SessionInfo> {
    return this.run(calls.mark(sessionId, name, options.remove ?? false, this.patience()));
  }

  /**
   * Make any other request, with the key, the deadline and the repeats of this client. path: begins behind the server's address; body: sent
   * as JSON; again: false where it must not be repeated once the server may have seen it. Throws Refused for every error that is answered.
   */
  request(method: string, path: string, options: { body?: Body; again?: boolean; timeout?: number } = {}): Promise<HttpResponse> {
    const content = options.body === undefined ? undefined : encode(options.body);
    return this.run(calls.ask(method, path, this.patience(options.timeout), { content, again: options.again ?? true }));
  }

  /** Return the patience for one call. */
  patience(timeout?: number | null): Patience {
    return new Patience(timeout ?? this.timeout, () => performance.now() / 1000, Math.random);
  }

  /** Do what a plan of HTTP calls asks for. */
  async run<R>(plan: Plan<R>): Promise<R> {
    let outcome: Outcome = undefined;
    for (;;) {
      const turn: IteratorResult<Command, R> = plan.next(outcome);
      if (turn.done) return turn.value;
      if (turn.value.kind === "http") outcome = await this.#perform(turn.value);
      else if (turn.value.kind === "sleep") {
        await slept(turn.value.seconds);
        outcome = undefined;
      } else throw new TypeError(`HTTP needs no ${turn.value.kind}`);
    }
  }

  async #perform(request: HttpRequest): Promise<HttpResponse | Lost> {
    const key = this.apiKey === undefined ? {} : { authorization: `Bearer ${this.apiKey}` };
    const body = request.content === undefined ? {} : { body: request.content as BodyInit };
    const headers = { ...request.headers, ...key };
    const signal = AbortSignal.timeout(milliseconds(request.timeout));
    try {
      const response = await this.#fetch(this.url + request.path, { method: request.method, headers, signal, ...body });
      return new HttpResponse(response.status, Object.fromEntries(response.headers), new Uint8Array(await response.arrayBuffer()));
    } catch (error) {
      return new Lost(error as Error, false, !unsent(error));
    }
  }
}

/** One session over a WebSocket. It stays on the server when this is closed. Calls are made one after another, in the order they came. */
export class Session {
  readonly client: Client;
  readonly #talk: Conversation;
  readonly #options: SessionOptions;
  readonly #socket: SocketMaker;
  #wire: Wire | undefined;
  #link: Link = { state: "lost" };
  #closed = false;
  #queue: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #returning: AbortController | undefined;

  constructor(client: Client, talk: Conversation, options: SessionOptions, socket: SocketMaker) {
    this.client = client;
    this.#talk = talk;
    this.#options = options;
    this.#socket = socket;
  }

  /** The session's id: keep it to go on later, from anywhere. */
  get id(): string {
    return this.#talk.sessionId ?? "";
  }

  /** The name of the session's model. */
  get model(): string {
    return this.#talk.model;
  }

  /** The version of the session's model. */
  get version(): string {
    return this.#talk.version;
  }

  /** The number of the last step. */
  get number(): number {
    return this.#talk.step;
  }

  /** The number of frames or characters consumed. */
  get position(): number {
    return this.#talk.position;
  }

  /** A generate that had been cut when the session was opened: `generate` with its options and `number` goes on. */
  get pending(): Pending | undefined {
    return this.#talk.pending;
  }

  /** What the connection is at. */
  get link(): Link {
    return this.#link;
  }

  /** Connect. Every other call does so by itself. */
  open(options: CallOptions = {}): Promise<void> {
    return this.#run((patience) => this.#talk.open(patience), options);
  }

  /** Drop the connection to the server. A later call connects again. */
  close(): void {
    this.#closed = true;
    this.#drop();
    this.#tell({ state: "closed" });
  }

  /**
   * Take one step of text, of sentences (a list of texts), of frames [T][J][3] or [T][P][J][3], or of numbers, rows [T][F] or samples
   * [T]. It is applied exactly once, whatever happens to connections and servers.
   *
   * After DeadlineExceeded it may have been applied or not: the same call again finds out. `number` is for those who count themselves. `t` is
   * of frames that come unevenly: the seconds, rising, at which each was taken; the session's later steps have it too.
   */
  step(content: Content, options: StepOptions = {}): Promise<Result> {
    const body = { ...contentOf(content), ...given({ t: options.t }) };
    return this.#run((patience) => this.#talk.feed(body, options.number ?? undefined, patience), options);
  }

  /** Return characters as the model draws them; iterate over it. `timeout` is for the next character. */
  generate(options: GenerateOptions = {}): Generation {
    const wanted = wish(options);
    const shell: GenerationShell = {
      begin: () => this.#run((patience) => this.#talk.begin(wanted, options.number ?? undefined, patience), options),
      next: (emission) => this.#next(emission, options.signal ?? undefined),
      leave: () => this.cancel(),
    };
    return new Generation(shell);
  }

  /** End the generate that is under way. Its iteration ends with what was drawn until then. */
  cancel(): void {
    const urgent = this.#talk.cancel();
    if (urgent !== undefined) this.#wire?.send(urgent); // if it fails, the iteration finds out and sends it again
  }

  /** Choose whether results and characters from now on carry every recurrent neuron; return the layers. */
  watch(neurons = true): Promise<Part[]> {
    return this.#run((patience) => this.#talk.watch(neurons, patience));
  }

  /** Put the session back at the start of a sequence; the next step is number 1. Throws Unanswered where a step has no answer yet. */
  reset(): Promise<void> {
    return this.#settled(async () => {
      this.#talk.needAnswers();
      this.#stands(await this.client.reset(this.id));
    });
  }

  /** Return the state as a file: it can be uploaded here or elsewhere. */
  download(): Promise<Uint8Array> {
    return this.#settled(() => this.client.download(this.id));
  }

  /** Go on where a downloaded state stood. Throws Unanswered where a step has no answer yet. */
  upload(state: Uint8Array): Promise<void> {
    return this.#settled(async () => {
      this.#talk.needAnswers();
      this.#stands(await this.client.upload(this.id, state));
    });
  }

  /** Open a second session that stands where this one does, with the same options; those given here are its own. */
  fork(options: Pick<SessionOptions, "onLink" | "reconnect" | "timeout"> = {}): Promise<Session> {
    return this.#settled(async () => {
      const there = this.#talk.of((await this.client.fork(this.id)).sessionId);
      const { timeout, reconnect } = this.#options;
      const twin = new Session(this.client, there, { ...given({ timeout, reconnect }), ...options }, this.#socket);
      await twin.open();
      return twin;
    });
  }

  /**
   * Go back to where the session stood after a step, or to a mark: one step, applied exactly once. Throws Conflict (`not_kept`).
   *
   * After DeadlineExceeded it may have been applied or not: the same call again finds out.
   */
  rewind(to: { step?: number; mark?: string }): Promise<void> {
    return this.#settled(async () => {
      const number = this.#talk.claimRewind(given(to));
      let info: SessionInfo;
      try {
        info = await this.client.rewind(this.id, to, { number, timeout: this.#options.timeout ?? null });
      } catch (error) {
        if (error instanceof Refused) this.#talk.notRewound();
        throw error;
      }
      this.#talk.rewound(info.step, info.position);
    });
  }

  /** Name the step where the session stands, to rewind to; its state is kept until the name is moved or taken away. */
  mark(name: string, options: { remove?: boolean } = {}): Promise<void> {
    return this.#settled(async () => {
      await this.client.mark(this.id, name, options);
    });
  }

  /** End the session, and close. */
  async delete(): Promise<void> {
    await this.client.delete(this.id);
    this.close();
  }

  // --- one call after another --------------------------------------------------------------------------------------------------------

  /** Take turns: what is called while another call is under way waits for its end. A call that comes stops connecting in the background. */
  #inTurn<R>(call: () => Promise<R>): Promise<R> {
    this.#returning?.abort(new Error("a call connects instead"));
    this.#waiting += 1;
    const turn = this.#queue.then(call).finally(() => {
      this.#waiting -= 1;
      if (this.#wire?.end) this.#ended(this.#wire, this.#wire.end); // during a call that had no use for it
    });
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  /** Run a plan in its turn. Whoever waits for it still, at the deadline or the signal, leaves the queue. */
  #run<R>(plan: (patience: Patience) => Plan<R>, options: CallOptions = {}): Promise<R> {
    const patience = this.client.patience(options.timeout ?? this.#options.timeout);
    const queued = new AbortController();
    const turn = this.#inTurn(() => {
      queued.signal.throwIfAborted();
      queued.abort(); // its turn has come: from here on the plan keeps the deadline
      options.signal?.throwIfAborted();
      this.#closed = false;
      return this.#drive(plan(patience), options.signal ?? undefined);
    });
    return Promise.race([turn, left(queued, patience, options.signal ?? undefined)]);
  }

  #settled<R>(call: () => Promise<R>): Promise<R> {
    return this.#inTurn(async () => {
      await this.#drive(this.#talk.settle(this.client.patience(this.#options.timeout)));
      return call();
    });
  }

  #next(emission: Emission, signal?: AbortSignal): Promise<Char | undefined> {
    return this.#inTurn(async () => {
      const running = emission.running as Plan<void>; // begin has made it
      let outcome: Outcome = undefined;
      for (;;) {
        const turn: IteratorResult<Command, void> = running.next(outcome);
        this.#tellLinked();
        if (turn.done) return undefined;
        if (turn.value.kind === "show") return turn.value.char;
        outcome = await this.#performOrDrop(turn.value, running, signal);
      }
    });
  }

  // --- doing what the core asks for --------------------------------------------------------------------------------------------------

  async #drive<R>(plan: Plan<R>, signal?: AbortSignal): Promise<R> {
    let outcome: Outcome = undefined;
    for (;;) {
      const turn: IteratorResult<Command, R> = plan.next(outcome);
      this.#tellLinked();
      if (turn.done) return turn.value;
      outcome = await this.#performOrDrop(turn.value, plan, signal);
    }
  }

  /** Do it. Whoever leaves by a signal leaves an answer on its way, which must not be taken for the next one's. */
  async #performOrDrop(command: Command, plan: Plan<unknown>, signal: AbortSignal | undefined): Promise<Outcome> {
    if (!signal) return this.#perform(command);
    let leave: () => void = () => undefined;
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(signal.reason as Error);
      signal.addEventListener("abort", leave);
    });
    left.catch(() => undefined); // heard below, or too late
    try {
      signal.throwIfAborted();
      return await Promise.race([left, this.#perform(command)]);
    } catch (error) {
      plan.return(undefined);
      this.#drop();
      this.#tell({ state: "lost", cause: error as Error });
      throw error;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  async #perform(command: Command): Promise<Outcome> {
    switch (command.kind) {
      case "receive":
        return this.#wire ? this.#wire.receive(command.timeout) : new Lost(new Error("the connection was dropped"));
      case "send":
        return this.#wire ? this.#wire.send(command.text) : new Lost(new Error("the connection was dropped"));
      case "sleep":
        this.#tell({ state: "waiting", cause: command.cause, seconds: command.seconds });
        await slept(command.seconds);
        return undefined;
      case "close":
        this.#drop();
        return undefined;
      case "connect": {
        this.#drop();
        this.#tell({ state: "connecting" });
        const wire = await Wire.connect(this.#socket, command.url, command.timeout);
        if (wire instanceof Lost) return wire;
        wire.onEnd = (lost) => this.#ended(wire, lost);
        this.#wire = wire;
        return undefined;
      }
      default:
        throw new TypeError(`a stream needs no ${command.kind}`);
    }
  }

  #drop(): void {
    this.#talk.lost();
    const wire = this.#wire;
    this.#wire = undefined;
    wire?.close();
  }

  /** The connection has ended while nobody waited for a message. */
  #ended(wire: Wire, lost: Lost): void {
    if (this.#wire !== wire || this.#waiting || this.#talk.emitting) return; // whoever is at it finds out
    this.#drop();
    this.#tell({ state: "lost", cause: lost.cause });
    if (!this.#closed && !lost.final && this.#options.reconnect !== false) void this.#return();
  }

  /** Connect again in the background, until a call comes and does it itself. */
  async #return(): Promise<void> {
    const controller = new AbortController();
    const patience = this.client.patience(Number.POSITIVE_INFINITY);
    const back = this.#queue.then(() => this.#drive(this.#talk.open(patience), controller.signal));
    this.#queue = back.catch(() => undefined);
    this.#returning = controller;
    try {
      await back;
    } catch (error) {
      if (!controller.signal.aborted) this.#tell({ state: "lost", cause: error as Error });
    } finally {
      if (this.#returning === controller) this.#returning = undefined;
    }
  }

  #stands(info: SessionInfo): void {
    this.#talk.stand(info.step, info.position);
  }

  #tellLinked(): void {
    if (this.#talk.linked && this.#link.state !== "open") this.#tell({ state: "open" });
  }

  #tell(link: Link): void {
    if (link.state === this.#link.state && link.cause === this.#link.cause) return;
    this.#link = link;
    this.#options.onLink?.(link);
  }
}

interface GenerationShell {
  begin(): Promise<Emission>;
  next(emission: Emission): Promise<Char | undefined>;
  leave(): void;
}

/**
 * A generate: iterate over it. `text` is what the session has consumed. Nothing is sent before the first character is asked for. Left early,
 * it is cancelled, and the session's next call waits for its end.
 */
export class Generation implements AsyncIterable<Char> {
  readonly #shell: GenerationShell;
  #emission: Emission | undefined;

  constructor(shell: GenerationShell) {
    this.#shell = shell;
  }

  /** The text that was drawn so far. */
  get text(): string {
    return this.#emission?.text ?? "";
  }

  /** `length`, `stop` or `cancelled`; undefined before the end. */
  get reason(): Reason | undefined {
    return this.#emission?.reason;
  }

  [Symbol.asyncIterator](): AsyncIterator<Char, undefined> {
    return {
      next: async () => {
        this.#emission ??= await this.#shell.begin();
        const value = await this.#shell.next(this.#emission);
        return value === undefined ? { done: true, value } : { done: false, value };
      },
      return: () => {
        if (this.#emission && this.#emission.reason === undefined) this.#shell.leave();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

function absolute(url: string): string {
  const page = (globalThis as { document?: { baseURI?: string } }).document?.baseURI;
  let there: URL;
  try {
    there = new URL(url, page);
  } catch {
    throw new ProtocolError(`expected http://… or https://…, got ${JSON.stringify(url)}`);
  }
  if (there.protocol !== "http:" && there.protocol !== "https:") {
    throw new ProtocolError(`expected http://… or https://…, got ${JSON.stringify(url)}`);
  }
  return (there.origin + there.pathname).replace(/\/+$/, "");
}

/** Leave the queue at the deadline or the signal: reject, so that the call is not made. Nothing happens once its turn has come. */
function left(queued: AbortController, patience: Patience, signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    const leave = (reason: Error): void => {
      queued.abort(reason);
      reject(reason);
    };
    const late = (): void => {
      try {
        timer = setTimeout(late, milliseconds(patience.left()));
      } catch (error) {
        leave(error as Error);
      }
    };
    const abort = (): void => leave(signal?.reason as Error);
    let timer: ReturnType<typeof setTimeout> | undefined;
    late();
    signal?.addEventListener("abort", abort);
    queued.signal.addEventListener("abort", () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
  });
}

/** Return seconds as timers take them, which know no longer time than 24 days. */
function milliseconds(seconds: number): number {
  return Math.min(Math.ceil(1000 * seconds), 2 ** 31 - 1);
}

function slept(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

const UNSENT = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"];

/** Whether a fetch failed before the server could see it. A browser does not tell. */
function unsent(error: unknown): boolean {
  const cause = (error as { cause?: { code?: string; errors?: { code?: string }[] } }).cause;
  const codes = [cause?.code, ...(cause?.errors ?? []).map((e) => e.code)];
  return codes.some((code) => code !== undefined && UNSENT.includes(code));
}

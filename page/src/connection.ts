/** One session over the stream: numbers its steps, and goes on where it stood when the connection was lost. */
import { fromBase64, halves } from "./half.ts";
import { Observable } from "./observable.ts";
import { ServiceError, access, address } from "./service.ts";

export interface Char {
  char: string;
  logprob: number;
}

export interface Neurons {
  values: Float32Array;
  steps: number;
  size: number;
}

export interface Prediction {
  label: string;
  score: number;
  top: { label: string; score: number }[];
}

export interface Result {
  step: number;
  position: number;
  chars: Char[];
  next: Char[];
  predictions: Prediction[];
  scores: number[][] | null;
  outputs: Record<string, unknown> | null;
  warnings: string[];
  neurons: Neurons | null;
}

export interface Drawn extends Char {
  neurons: Neurons | null;
}

export interface WatchedPart {
  layer: number;
  size: number;
  activation: string;
}

export interface Wish {
  max_chars?: number;
  temperature?: number;
  top_p?: number;
  seed?: number;
  stop?: string[];
}

type Message = Record<string, unknown>;

/** How many sessions of the page are without connection, and since when one came back. */
export const link = { lost: new Observable(0), resumed: new Observable(0) };

const TRANSIENT = new Set(["overloaded", "stopping", "store_failed", "rate_limited", "body_timeout"]);
const PAUSES = [50, 200, 500, 1000, 2000];

class Broken extends Error {}

export class Session {
  id: string | null;
  step = 0;
  position = 0;
  parts: WatchedPart[] = [];
  private socket: WebSocket | null = null;
  private readonly inbox: (Message | null)[] = [];
  private wake: (() => void) | null = null;
  private turn: Promise<unknown> = Promise.resolve();
  private opened = false;
  private watching = false;
  private closed = false;
  private isLost = false;

  constructor(
    readonly model: string,
    private readonly opening: Message = {},
    id: string | null = null,
  ) {
    this.id = id;
  }

  /** Open the session, or find out where it stands. */
  open(): Promise<void> {
    return this.inTurn(() => this.persist(() => this.connect()));
  }

  /** Take one step with text, frames or values. */
  feed(content: Message): Promise<Result> {
    return this.inTurn(async () => {
      if (!this.opened) await this.persist(() => this.connect());
      const number = this.step + 1;
      const body = await this.persist(async () => {
        await this.connect();
        this.say({ type: "step", step: number, ...content });
        return await this.hear("result");
      });
      this.step = number;
      this.position = body["position"] as number;
      return read(body);
    });
  }

  /** Generate characters. Each is shown once; leave the loop, or `cancel`, to end it. */
  async *generate(wish: Wish): AsyncGenerator<Drawn, void, undefined> {
    let release!: () => void;
    const before = this.turn;
    this.turn = new Promise<void>((done) => (release = done));
    await before.catch(() => undefined);
    let ended = false;
    const number = this.step + 1;
    try {
      if (!this.opened) await this.persist(() => this.connect());
      let seen = 0;
      let sent = false;
      let count = 0;
      for (;;) {
        const body: Message = await this.persist(async () => {
          if (this.socket === null) sent = false;
          await this.connect();
          if (!sent) {
            this.say({ type: "generate", step: number, ...wish });
            if (this.cancelling) this.say({ type: "cancel", step: number });
            sent = true;
            count = 0;
          }
          return await this.hear("char", "done");
        });
        this.step = number;
        if (body["type"] === "done") {
          this.position = body["position"] as number;
          ended = true;
          return;
        }
        if (++count <= seen) continue;
        seen = count;
        yield { char: body["char"] as string, logprob: body["logprob"] as number, neurons: neurons(body) };
      }
    } finally {
      if (!ended && this.socket !== null) {
        this.cancel();
        await this.hear("done").then((body) => (this.position = body["position"] as number)).catch(() => this.drop());
      }
      this.cancelling = false;
      release();
    }
  }

  private cancelling = false;

  /** End the generate under way. */
  cancel(): void {
    this.cancelling = true;
    if (this.socket !== null && this.opened) this.say({ type: "cancel", step: this.step });
  }

  /** Have every result carry the neurons from now on. */
  watch(): Promise<WatchedPart[]> {
    return this.inTurn(async () => {
      this.watching = true;
      await this.persist(async () => {
        if (this.socket === null) await this.connect();
        else await this.sayWatch();
      });
      return this.parts;
    });
  }

  close(): void {
    this.closed = true;
    this.isSound();
    this.drop();
  }

  private inTurn<T>(act: () => Promise<T>): Promise<T> {
    const next = this.turn.catch(() => undefined).then(act);
    this.turn = next;
    return next;
  }

  private async persist<T>(attempt: () => Promise<T>): Promise<T> {
    for (let tries = 0; ; tries++) {
      try {
        const outcome = await attempt();
        this.isSound();
        return outcome;
      } catch (error) {
        const later = error instanceof ServiceError && TRANSIENT.has(error.code);
        if (this.closed) throw new ServiceError("closed", "The session was closed.");
        if (error instanceof ServiceError && error.code === "unauthorized") {
          await access.ask();
          continue;
        }
        if (!later && !(error instanceof Broken)) throw error;
        this.drop();
        if (!this.isLost && tries > 0) {
          this.isLost = true;
          link.lost.set(link.lost.value + 1);
        }
        await new Promise((done) => setTimeout(done, PAUSES[Math.min(tries, PAUSES.length - 1)]));
      }
    }
  }

  private isSound(): void {
    if (!this.isLost) return;
    this.isLost = false;
    link.lost.set(link.lost.value - 1);
    link.resumed.set(link.resumed.value + 1);
  }

  private async connect(): Promise<void> {
    if (this.socket !== null) return;
    const url = address(`stream/${encodeURIComponent(this.model)}`);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    this.inbox.length = 0;
    socket.onmessage = (event) => this.arrive(JSON.parse(String(event.data)) as Message);
    socket.onclose = () => {
      if (this.socket === socket) this.socket = null;
      this.arrive(null);
    };
    this.socket = socket;
    await new Promise<void>((done, fail) => {
      socket.onopen = () => done();
      socket.onerror = () => fail(new Broken());
    });
    this.say({ type: "open", ...this.opening, session_id: this.id, api_key: access.key });
    const body = await this.hear("opened");
    if (!this.opened) {
      this.step = body["step"] as number;
      this.position = body["position"] as number;
    }
    this.id = body["session_id"] as string;
    this.opened = true;
    if (this.watching) await this.sayWatch();
  }

  private async sayWatch(): Promise<void> {
    this.say({ type: "watch", neurons: true });
    this.parts = (await this.hear("watching"))["parts"] as WatchedPart[];
  }

  private say(message: Message): void {
    if (this.socket?.readyState !== WebSocket.OPEN) throw new Broken();
    this.socket.send(JSON.stringify(message));
  }

  private arrive(message: Message | null): void {
    this.inbox.push(message);
    this.wake?.();
  }

  private async hear(...kinds: string[]): Promise<Message> {
    while (this.inbox.length === 0) {
      if (this.socket === null) throw new Broken();
      await new Promise<void>((done) => (this.wake = done));
    }
    const body = this.inbox.shift();
    if (body === null || body === undefined) throw new Broken();
    if (body["type"] === "error") {
      throw new ServiceError(String(body["code"]), String(body["detail"]), (body["expected_step"] as number | undefined) ?? null);
    }
    if (!kinds.includes(String(body["type"]))) return await this.hear(...kinds);
    return body;
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = null;
    if (socket !== null) {
      socket.onclose = socket.onmessage = null;
      socket.close();
    }
    this.inbox.length = 0;
  }
}

function neurons(body: Message): Neurons | null {
  if (typeof body["states"] !== "string") return null;
  const [steps, size] = body["shape"] as [number, number];
  return { values: halves(fromBase64(body["states"])), steps, size };
}

function read(body: Message): Result {
  return {
    step: body["step"] as number,
    position: body["position"] as number,
    chars: (body["chars"] as Char[] | undefined) ?? [],
    next: (body["next"] as Char[] | undefined) ?? [],
    predictions: (body["predictions"] as Prediction[] | undefined) ?? [],
    scores: (body["scores"] as number[][] | undefined) ?? null,
    outputs: (body["outputs"] as Record<string, unknown> | undefined) ?? null,
    warnings: (body["warnings"] as string[] | undefined) ?? [],
    neurons: neurons(body),
  };
}

/** Sessions as the page uses them: opened when they are needed, asking for a key where one is wanted, waiting however long it takes. */
import { Client, Unauthorized, type Char, type Part, type Result, type Session as Stream } from "../client/src/index.ts";
import type { Content, GenerateOptions, SessionOptions, StepOptions } from "../client/src/index.ts";
import { Observable } from "./observable.ts";
import { ServiceError, access, remove } from "./service.ts";

/** How many sessions of the page wait for their connection, and how often one came back. */
export const link = { lost: new Observable(0), resumed: new Observable(0) };

export class Session {
  private stream: Promise<Stream> | null = null;
  private known: Stream | null = null;
  private waits = false;
  private watching = false;
  private closed = false;
  parts: readonly Part[] = [];

  constructor(
    private readonly model: string,
    private readonly options: SessionOptions = {},
    private readonly resumed: string | null = null,
  ) {}

  /** The session's id, once it is open. */
  get id(): string | null {
    return this.known?.id ?? this.resumed;
  }

  /** The version of its model, once it is open. */
  get version(): string | null {
    return this.known?.version ?? null;
  }

  get number(): number {
    return this.known?.number ?? 0;
  }

  get position(): number {
    return this.known?.position ?? 0;
  }

  /** Open the session, or find out where it stands. */
  async open(): Promise<string> {
    return (await this.opened()).id;
  }

  /** Take one step. It is applied exactly once, whatever happens to the connection. */
  feed(content: Content, options: StepOptions = {}): Promise<Result> {
    return this.attempt((stream) => stream.step(content, options));
  }

  /** Generate characters. Leave the loop, or `cancel`, to end it. */
  async *generate(options: GenerateOptions): AsyncGenerator<Char, void, undefined> {
    const stream = await this.opened();
    try {
      for await (const char of stream.generate(options)) yield char;
    } catch (error) {
      throw this.told(error);
    }
  }

  cancel(): void {
    this.known?.cancel();
  }

  /** Have every result carry the neurons from now on. */
  async watch(): Promise<readonly Part[]> {
    this.parts = await this.attempt((stream) => stream.watch());
    this.watching = true;
    return this.parts;
  }

  /** Put a state in place of the session's, which has to be where it was left, after step `left`. Waits for the connection. */
  async replace(state: Uint8Array, left: number): Promise<void> {
    await this.attempt(async (stream) => {
      const there = await stream.client.look(stream.id);
      if (there.step !== left) {
        throw new ServiceError("moved", `The session was stepped elsewhere meanwhile: it stands after step ${there.step}, and was left after ${left}.`);
      }
      await stream.upload(state);
    });
  }

  close(): void {
    this.closed = true;
    this.wait(false, false);
    this.known?.close();
  }

  /** Close, and delete the session on the server, also one that is only being opened. */
  forget(): void {
    this.close();
    const id = this.stream === null ? Promise.resolve(this.id) : this.stream.then((stream) => stream.id);
    id.then((there) => (there === null ? undefined : remove(there))).catch(() => undefined);
  }

  private opened(): Promise<Stream> {
    this.stream ??= this.begin();
    return this.stream;
  }

  private async begin(): Promise<Stream> {
    for (;;) {
      const client = new Client(".", { apiKey: access.key, timeout: Infinity });
      const onLink = ({ state }: { state: string }) => {
        if (state === "waiting") this.wait(true, false);
        else if (state === "open") this.wait(false, true);
      };
      try {
        const stream = await client.session(this.model, { ...this.options, sessionId: this.id, onLink });
        this.known = stream;
        if (this.closed) stream.close();
        if (this.watching) await stream.watch();
        return stream;
      } catch (error) {
        if (!(error instanceof Unauthorized)) {
          this.stream = null;
          throw this.told(error);
        }
        await access.ask();
      }
    }
  }

  private async attempt<T>(call: (stream: Stream) => Promise<T>): Promise<T> {
    for (;;) {
      const stream = await this.opened();
      try {
        return await call(stream);
      } catch (error) {
        if (!(error instanceof Unauthorized)) throw this.told(error);
        stream.close();
        this.stream = null; // the key is no longer known: opened again with another
        await access.ask();
      }
    }
  }

  private told(error: unknown): unknown {
    return this.closed ? new ServiceError("closed", "The session was closed.") : error;
  }

  private wait(waits: boolean, back: boolean): void {
    if (waits === this.waits || (waits && this.closed)) return;
    this.waits = waits;
    link.lost.set(link.lost.value + (waits ? 1 : -1));
    if (back) link.resumed.set(link.resumed.value + 1);
  }
}

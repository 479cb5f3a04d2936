/** A WebSocket as the shell needs it: messages one by one, each with a deadline, and what its end means. */

import { Lost } from "./commands.js";
import { ProtocolError, Refused } from "./errors.js";

/** The parts of a browser's WebSocket that are used here. `status`: of HTTP, where the handshake was refused and it is known. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: ((close: { code: number; reason: string; status?: number }) => void) | null;
  send(text: string): void;
  close(): void;
}

/** Opens a WebSocket. */
export type SocketMaker = (url: string) => Socket;

const TRY_AGAIN = [429, 502, 503, 504];
const HOPELESS = [1003, 1007, 1008, 1009, 1010]; // closes that the same message would meet again

/** One connection. `onEnd` is told where it ends while nobody waits for a message. */
export class Wire {
  onEnd: ((lost: Lost) => void) | undefined;
  readonly #socket: Socket;
  readonly #inbox: string[] = [];
  #end: Lost | undefined;
  #waiting: ((outcome: string | Lost | undefined) => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return;
      if (this.#waiting) this.#waiting(data);
      else this.#inbox.push(data);
    };
    socket.onclose = ({ code, reason, status }) => this.#ended(meaning(code, reason, status));
  }

  /** Connect, within so many seconds. Return the connection or what became of it. */
  static async connect(make: SocketMaker, url: string, timeout: number): Promise<Wire | Lost> {
    let socket: Socket;
    try {
      socket = make(url);
    } catch (error) {
      return new Lost(error as Error, true); // an address that is none
    }
    const wire = new Wire(socket);
    socket.onopen = () => wire.#waiting?.(undefined);
    const outcome = await wire.#within(timeout);
    if (!(outcome instanceof Lost)) return wire;
    wire.close();
    return outcome;
  }

  /** Send a message. Return what became of the connection, where it is no more. */
  send(message: string): Lost | undefined {
    if (!this.#end) this.#socket.send(message);
    return this.#end;
  }

  /** Return the next message, or what became of the connection. */
  async receive(timeout: number): Promise<string | Lost> {
    const message = this.#inbox.shift();
    if (message !== undefined) return message;
    return (await this.#within(timeout)) as string | Lost;
  }

  /** Drop the connection. */
  close(): void {
    this.#ended(new Lost(new Error("the connection was dropped")), false);
    this.#socket.close();
  }

  #ended(lost: Lost, told = true): void {
    if (this.#end) return;
    this.#end = lost;
    if (this.#waiting) this.#waiting(lost);
    else if (told) this.onEnd?.(lost);
  }

  /** What became of the connection, once it has ended. */
  get end(): Lost | undefined {
    return this.#end;
  }

  /** Wait for a message, the end, the time, or that it is open. */
  #within(timeout: number): Promise<string | Lost | undefined> {
    if (this.#end) return Promise.resolve(this.#end);
    return new Promise((resolve) => {
      const settle = (outcome: string | Lost | undefined): void => {
        clearTimeout(timer);
        this.#waiting = undefined;
        resolve(outcome);
      };
      const timer = setTimeout(() => settle(new Lost(new Error(`nothing came for ${timeout.toFixed(1)} s`))), 1000 * timeout);
      this.#waiting = settle;
    });
  }
}

function meaning(code: number, reason: string, status: number | undefined): Lost {
  if (status !== undefined && !TRY_AGAIN.includes(status)) {
    return new Lost(new Refused(reason || `expected a WebSocket, got HTTP ${status}`, { code: `http_${status}`, status }), true);
  }
  const why = `the connection was closed: ${code}${reason ? ` ${reason}` : ""}`;
  return HOPELESS.includes(code) ? new Lost(new ProtocolError(why, { code: "closed" }), true) : new Lost(new Error(why));
}

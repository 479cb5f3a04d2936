/** A WebSocket (RFC 6455) over Node's own HTTP: the client's side, texts alone, no extensions. */

import { createHash, randomBytes } from "node:crypto";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Duplex } from "node:stream";

import type { Socket } from "./wire.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_MESSAGE = 64 * 2 ** 20; // bytes of a message from the server: the states of a watched step are some hundred kilobytes
const MAX_REFUSAL = 65_536; // bytes of the body that says why a handshake was refused
const PING = 20_000; // milliseconds between signs of life, and for the answer to one
const CLOSE_WITHIN = 1_000; // milliseconds to say goodbye
const ABNORMAL = 1006;
const enum Op {
  Continuation = 0,
  Text = 1,
  Binary = 2,
  Close = 8,
  Ping = 9,
  Pong = 10,
}

/** One connection, as the shell uses a browser's. */
export class NodeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: ((close: { code: number; reason: string; status?: number }) => void) | null = null;
  #stream: Duplex | undefined;
  #closed = false;
  #heard = true;
  #pings: NodeJS.Timeout | undefined;
  #pieces: Buffer[] = [];
  #have = 0;
  #need = 2; // bytes until the next frame is whole, as far as it is known
  #message: Buffer[] = [];
  #length = 0;
  readonly #abort = new AbortController();

  /** Throws TypeError where the address is none. */
  constructor(url: string) {
    const there = new URL(url);
    const secure = there.protocol === "wss:";
    const key = randomBytes(16).toString("base64");
    there.protocol = secure ? "https:" : "http:";
    const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": key };
    const request = (secure ? httpsRequest : httpRequest)(there, { headers, agent: false, signal: this.#abort.signal });
    request.on("error", (error) => this.#end(ABNORMAL, error.message));
    request.on("response", (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        if (body.length < MAX_REFUSAL) body += piece;
      });
      const status = response.statusCode ?? 0;
      response.on("close", () => this.#end(ABNORMAL, detailOf(body), status));
      response.on("error", () => this.#end(ABNORMAL, "", status));
    });
    request.on("upgrade", (response, stream, head) => {
      const expected = createHash("sha1").update(key + GUID).digest("base64");
      if (response.headers["sec-websocket-accept"] !== expected) {
        stream.destroy();
        this.#end(ABNORMAL, "the handshake's answer is another's");
        return;
      }
      this.#opened(stream, head);
    });
    request.end();
  }

  /** Send a text. */
  send(text: string): void {
    this.#write(Op.Text, Buffer.from(text, "utf8"));
  }

  /** Say goodbye, and do not wait for the answer longer than a second. */
  close(): void {
    if (this.#closed) return;
    if (!this.#stream) {
      this.#abort.abort();
      this.#end(ABNORMAL, "closed before it was open");
      return;
    }
    const stream = this.#stream;
    this.#goodbye(1000);
    setTimeout(() => stream.destroy(), CLOSE_WITHIN).unref();
    this.#end(1000, "");
  }

  #opened(stream: Duplex, head: Buffer): void {
    if (this.#closed) {
      stream.destroy();
      return;
    }
    this.#stream = stream;
    (stream as { setNoDelay?: (on: boolean) => void }).setNoDelay?.(true);
    stream.on("data", (piece: Buffer) => this.#take(piece));
    stream.on("error", (error) => this.#end(ABNORMAL, error.message));
    stream.on("close", () => this.#end(ABNORMAL, ""));
    stream.on("end", () => stream.destroy());
    this.#pings = setInterval(() => this.#ping(), PING);
    this.#pings.unref();
    this.onopen?.();
    if (head.length) this.#take(head);
  }

  #ping(): void {
    if (!this.#heard) {
      this.#stream?.destroy();
      this.#end(ABNORMAL, "no sign of life");
      return;
    }
    this.#heard = false;
    this.#write(Op.Ping, Buffer.alloc(0));
  }

  #goodbye(code: number): void {
    const body = Buffer.alloc(2);
    body.writeUInt16BE(code);
    this.#write(Op.Close, body);
    this.#stream?.end();
  }

  #end(code: number, reason: string, status?: number): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#pings);
    this.onclose?.({ code, reason, ...(status !== undefined && { status }) });
  }

  /** Give up: the server does not keep to the protocol. */
  #fail(code: number, reason: string): void {
    this.#goodbye(code);
    this.#stream?.destroy();
    this.#end(code, reason);
  }

  #write(op: Op, body: Buffer): void {
    const stream = this.#stream;
    if (this.#closed || !stream?.writable) return;
    const size = body.length < 126 ? 0 : body.length < 65_536 ? 2 : 8;
    const frame = Buffer.allocUnsafe(6 + size + body.length);
    frame[0] = 0x80 | op;
    frame[1] = 0x80 | (size === 0 ? body.length : size === 2 ? 126 : 127);
    if (size === 2) frame.writeUInt16BE(body.length, 2);
    if (size === 8) frame.writeBigUInt64BE(BigInt(body.length), 2);
    const mask = randomBytes(4);
    mask.copy(frame, 2 + size);
    for (let i = 0, at = 6 + size; i < body.length; i++, at++) frame[at] = (body[i] as number) ^ (mask[i & 3] as number);
    stream.write(frame);
  }

  #take(piece: Buffer): void {
    this.#heard = true;
    this.#pieces.push(piece);
    this.#have += piece.length;
    while (!this.#closed && this.#have >= this.#need) {
      const buffer = this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces);
      const taken = this.#frame(buffer);
      this.#have = buffer.length - taken;
      this.#pieces = this.#have ? [buffer.subarray(taken)] : [];
    }
  }

  /** Take a frame, if it is whole, and return its size; otherwise say how much is needed, and return 0. */
  #frame(buffer: Buffer): number {
    const [first, second] = buffer as unknown as [number, number];
    let length = second & 0x7f;
    const at = 2 + (length === 126 ? 2 : length === 127 ? 8 : 0);
    if (buffer.length < at) return this.#missing(at);
    if (length === 126) length = buffer.readUInt16BE(2);
    else if (length === 127) length = Number(buffer.readBigUInt64BE(2));
    if (length + this.#length > MAX_MESSAGE) this.#fail(1009, "the message is too long");
    else if (buffer.length < at + length) return this.#missing(at + length);
    else if (first & 0x70 || second & 0x80) this.#fail(1002, "a frame with an extension, or masked");
    else this.#heardFrame(first & 0x0f, (first & 0x80) !== 0, buffer.subarray(at, at + length));
    this.#need = 2;
    return at + length;
  }

  #missing(need: number): number {
    this.#need = need;
    return 0;
  }

  #heardFrame(op: number, last: boolean, body: Buffer): void {
    if (op === (Op.Ping as number)) this.#write(Op.Pong, body);
    else if (op === (Op.Close as number)) {
      const [code, reason] = body.length >= 2 ? [body.readUInt16BE(0), body.subarray(2).toString("utf8")] : [1005, ""];
      if (code === 1005) this.#stream?.end();
      else this.#goodbye(code);
      this.#end(code, reason);
    } else if (op === (Op.Text as number) || op === (Op.Binary as number) || op === (Op.Continuation as number)) {
      this.#message.push(body);
      this.#length += body.length;
      if (!last) return;
      const whole = this.#message.length === 1 ? body : Buffer.concat(this.#message);
      this.#message = [];
      this.#length = 0;
      this.onmessage?.({ data: whole.toString("utf8") });
    }
  }
}

/** Return the sentence of a problem document. */
function detailOf(body: string): string {
  try {
    const { detail } = JSON.parse(body) as { detail?: unknown };
    return typeof detail === "string" ? detail : "";
  } catch {
    return "";
  }
}

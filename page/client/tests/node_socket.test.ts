/** The WebSocket over Node's HTTP, against a server that writes its bytes by hand. */

import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";

import { afterEach, describe, expect, it } from "vitest";

import { NodeSocket } from "../src/node_socket.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
let server: Server | undefined;
const open: Duplex[] = [];

afterEach(() => {
  for (const stream of open.splice(0)) stream.destroy();
  server?.close();
});

/** A frame of the server's. */
function frame(first: number, body: Buffer | string): Buffer {
  const bytes = Buffer.from(body as string);
  const size = bytes.length;
  const head = size < 126 ? [first, size] : size < 65_536 ? [first, 126, size >> 8, size & 255] : [first, 127, 0, 0, 0, 0, ...quarters(size)];
  return Buffer.concat([Buffer.from(head), bytes]);
}

function quarters(size: number): number[] {
  return [24, 16, 8, 0].map((bits) => (size >> bits) & 255);
}

/** Read one masked frame of the client's. */
function heard(bytes: Buffer): { first: number; text: string } {
  expect((bytes[1] ?? 0) & 128).toBe(128);
  const short = (bytes[1] ?? 0) & 127;
  const at = short === 126 ? 4 : short === 127 ? 10 : 2;
  const mask = bytes.subarray(at, at + 4);
  return { first: bytes[0] ?? 0, text: Buffer.from(bytes.subarray(at + 4).map((b, i) => b ^ (mask[i & 3] ?? 0))).toString("utf8") };
}

interface Talk {
  socket: NodeSocket;
  messages: unknown[];
  ended: Promise<{ code: number; reason: string; status?: number }>;
  opened: Promise<void>;
}

/** Connect to a server that accepts, and then does as `then` says. */
async function connected(then: (stream: Duplex, head: string[]) => void, accept?: string): Promise<Talk> {
  server = createServer((_, response) => {
    response.writeHead(403, { "content-type": "application/problem+json" });
    response.end(JSON.stringify({ code: "forbidden_origin", detail: "not from there" }));
  });
  if (accept !== "refuse") {
    server.on("upgrade", (request, stream) => {
      open.push(stream);
      stream.on("error", () => undefined);
      const key = createHash("sha1").update(`${request.headers["sec-websocket-key"] ?? ""}${GUID}`).digest("base64");
      stream.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept ?? key}\r\n\r\n`);
      then(stream, request.rawHeaders);
    });
  }
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const socket = new NodeSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/stream/m`);
  const messages: unknown[] = [];
  socket.onmessage = ({ data }) => messages.push(data);
  const ended = new Promise<{ code: number; reason: string; status?: number }>((resolve) => (socket.onclose = resolve));
  const opened = new Promise<void>((resolve) => (socket.onopen = resolve));
  return { socket, messages, ended, opened };
}

describe("a WebSocket of Node's", () => {
  it("reads messages of every size, in pieces of every size", async () => {
    const long = "é".repeat(40_000);
    const { socket, messages, ended } = await connected((stream) => {
      const bytes = Buffer.concat([
        frame(0x81, "short"),
        frame(0x81, "m".repeat(300)),
        frame(0x81, long),
        frame(0x01, "in "),
        frame(0x89, "are you there"),
        frame(0x00, "three "),
        frame(0x80, "frames"),
        frame(0x88, Buffer.from([0x03, 0xf4, ...Buffer.from("service restart")])),
      ]);
      let at = 0;
      const next = (): void => {
        if (at >= bytes.length) return;
        const piece = bytes.subarray(at, at + 1 + ((at * 7919) % 1999));
        at += piece.length;
        stream.write(piece, next);
      };
      next();
    });
    expect(await ended).toEqual({ code: 1012, reason: "service restart" });
    expect(messages).toEqual(["short", "m".repeat(300), long, "in three frames"]);
    socket.send("too late"); // as a browser's: nothing
  });

  it("writes masked texts of every size, and answers a ping", async () => {
    const sizes = [0, 1, 125, 126, 65_535, 65_536];
    const frames: { first: number; text: string }[] = [];
    let done = (): void => undefined;
    const all = new Promise<void>((resolve) => (done = resolve));
    const { socket, opened } = await connected((stream) => {
      let bytes = Buffer.alloc(0);
      stream.on("data", (piece: Buffer) => {
        bytes = Buffer.concat([bytes, piece]);
        for (;;) {
          if (bytes.length < 2) return;
          const short = (bytes[1] ?? 0) & 127;
          const at = short === 126 ? 4 : short === 127 ? 10 : 2;
          if (bytes.length < at) return;
          const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
          if (bytes.length < at + 4 + length) return;
          frames.push(heard(bytes.subarray(0, at + 4 + length)));
          bytes = bytes.subarray(at + 4 + length);
          if (frames.length === sizes.length + 1) done();
        }
      });
      setTimeout(() => stream.write(frame(0x89, "ping")), 50);
    });
    await opened;
    for (const size of sizes) socket.send("x".repeat(size));
    await all;
    expect(frames).toEqual([...sizes.map((size) => ({ first: 0x81, text: "x".repeat(size) })), { first: 0x8a, text: "ping" }]);
    socket.close();
  });

  it("says why a handshake was refused", async () => {
    const { ended } = await connected(() => undefined, "refuse");
    expect(await ended).toEqual({ code: 1006, reason: "not from there", status: 403 });
  });

  it.each([
    ["masked", Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x61]), 1002],
    ["of an extension", Buffer.from([0xc1, 0x01, 0x61]), 1002],
    ["too long", Buffer.from([0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]), 1009],
  ])("ends over a frame that is %s", async (_, bytes, code) => {
    const { ended, messages } = await connected((stream) => stream.write(bytes));
    expect((await ended).code).toBe(code);
    expect(messages).toEqual([]);
  });

  it("ends where the connection does, and where the handshake's answer is another's", async () => {
    const cut = await connected((stream) => stream.destroy());
    expect((await cut.ended).code).toBe(1006);
    server?.close();
    const other = await connected(() => undefined, "x");
    expect(await other.ended).toEqual({ code: 1006, reason: "the handshake's answer is another's" });
  });

  it("ends where nobody is there, and where it is closed before it is open", async () => {
    const nobody = new NodeSocket("ws://127.0.0.1:1/");
    const ended = await new Promise<{ code: number }>((resolve) => (nobody.onclose = resolve));
    expect(ended.code).toBe(1006);
    const { socket, ended: early } = await connected(() => undefined);
    socket.close();
    expect((await early).code).toBe(1006);
  });
});

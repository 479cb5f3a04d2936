/** The shell against the made-up server: calls that come at once, connections that end, callers that leave. Time is the test's. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Client, connect, type Link, type Session } from "../src/index.js";
import { DeadlineExceeded, ProtocolError, Unanswered } from "../src/errors.js";
import type { Socket } from "../src/wire.js";
import { Chance, drawn, World } from "./world.js";

/** A WebSocket to the world, each message a moment under way. */
class WorldSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: ((close: { code: number; reason: string; status?: number }) => void) | null = null;
  #open = true;

  constructor(
    readonly world: World,
    readonly net: Net,
  ) {
    net.sockets.push(this);
    setTimeout(() => {
      if (!this.#open) return;
      world.connects += 1;
      if (net.refuses !== undefined) this.end(1006, "no", net.refuses);
      else if (world.down || world.fault()) this.end(1006);
      else {
        world.cut();
        for (const other of net.sockets) if (other !== this) other.end(1006); // this server has one session and one connection
        world.connected = true;
        this.onopen?.();
        this.#flush();
      }
    }, 1);
  }

  send(text: string): void {
    setTimeout(() => {
      if (!this.#open || this.net.dead) return;
      if (this.world.fault()) this.end(1006);
      else {
        this.world.take(JSON.parse(text) as Record<string, unknown>);
        if (this.world.fault()) this.end(1006);
      }
    }, 1);
  }

  close(): void {
    this.end(1000);
  }

  end(code: number, reason = "", status?: number): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.world.connected) this.world.cut();
    this.onclose?.({ code, reason, ...(status !== undefined && { status }) });
  }

  #flush(): void {
    setTimeout(() => {
      if (!this.#open) return;
      if (this.world.active && !this.world.inbox.length) this.world.emit();
      for (const message of this.net.dead ? [] : this.world.inbox.splice(0)) {
        if (this.world.fault()) {
          this.end(1006);
          return;
        }
        this.onmessage?.({ data: JSON.stringify(message) });
      }
      this.#flush();
    }, 1);
  }
}

/** The network: its sockets; whether handshakes are refused, and with which status; whether it swallows everything. */
class Net {
  sockets: WorldSocket[] = [];
  refuses: number | undefined;
  dead = false;
  links: Link[] = [];

  constructor(readonly world: World) {}

  connect(options = {}): Promise<Session> {
    const socket = () => new WorldSocket(this.world, this);
    return connect("http://x", { model: "m", socket, onLink: (link) => this.links.push(link), ...options });
  }

  get last(): WorldSocket {
    return this.sockets.at(-1) as WorldSocket;
  }

  get states(): string[] {
    return this.links.splice(0).map((link) => link.state);
  }
}

/** Wait for it, while time flies. */
async function soon<R>(promise: Promise<R>): Promise<R> {
  const state = { over: false };
  const ended = () => (state.over = true);
  promise.then(ended, ended);
  for (let i = 0; !state.over && i < 100_000; i++) await vi.advanceTimersByTimeAsync(1 + (i >> 8));
  return promise;
}

async function collected(chars: AsyncIterable<{ char: string }>): Promise<string> {
  let text = "";
  for await (const { char } of chars) text += char;
  return text;
}

let world: World;
let net: Net;
beforeEach(() => {
  vi.useFakeTimers();
  world = new World();
  net = new Net(world);
});
afterEach(() => void vi.useRealTimers());

describe("a session", () => {
  it("sends with frames when each was taken, where somebody says so", async () => {
    const sent: Record<string, unknown>[] = [];
    const take = world.take.bind(world);
    world.take = (message) => {
      sent.push(message);
      take(message);
    };
    const session = await soon(net.connect());
    await soon(session.step("ab", { t: [0.5, 0.75] }));
    await soon(session.step("cd", { t: null }));
    expect(sent.filter(({ type }) => type === "step").map(({ t }) => t)).toEqual([[0.5, 0.75], undefined]);
    session.close();
  });

  it("takes calls that come at once in their order, through a network that loses anything anywhere", async () => {
    for (let seed = 0; seed < 25; seed++) {
      world = new World(new Chance(seed), 25);
      net = new Net(world);
      const session = await soon(net.connect({ timeout: 10_000 }));
      const steps = ["a", "b", "c", "d"].map((text) => session.step(text));
      const generation = session.generate({ maxChars: 5 });
      const generated = Promise.all(steps).then(() => collected(generation));
      const results = await soon(Promise.all(steps));
      expect(results.map((r) => [r.step, r.position])).toEqual([1, 2, 3, 4].map((n) => [n, n]));
      expect(await soon(generated)).toBe(drawn(5, 5));
      expect(generation.reason).toBe("length");
      expect((await soon(session.step("e"))).step).toBe(6);
      expect(world.history, `seed ${seed}`).toEqual(["a", "b", "c", "d", "generate 5", "e"]);
      session.close();
    }
  });

  it("says that its connection was lost, and connects again by itself", async () => {
    const session = await soon(net.connect());
    expect(net.states).toEqual(["connecting", "open"]);
    world.down = true;
    net.last.end(1006);
    expect(net.links.at(-1)).toMatchObject({ state: "lost", cause: expect.any(Error) as Error });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(new Set(net.states)).toEqual(new Set(["lost", "connecting", "waiting"]));
    expect(net.sockets.length).toBeGreaterThan(20);
    expect(net.sockets.length).toBeLessThan(70);
    world.down = false;
    await vi.advanceTimersByTimeAsync(3_000);
    expect(session.link.state).toBe("open");
    const connects = world.connects;
    expect((await soon(session.step("a"))).step).toBe(1);
    expect(world.connects).toBe(connects);
    session.close();
    expect(net.states.at(-1)).toBe("closed");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(world.connects).toBe(connects);
  });

  it("does not connect by itself where that is not wanted, and at the next call does", async () => {
    const session = await soon(net.connect({ reconnect: false }));
    net.last.end(1006);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([session.link.state, net.sockets.length]).toEqual(["lost", 1]);
    expect((await soon(session.step("a"))).step).toBe(1);
    session.close();
  });

  it("finds a connection that ended during a call which had no use for it", async () => {
    const INFO = { session_id: "s", model: "m", version: "1", step: 0, position: 0 };
    const fetch = (async () => {
      net.last.end(1006);
      await Promise.resolve();
      return Response.json(INFO);
    }) as typeof globalThis.fetch;
    const session = await soon(net.connect({ fetch }));
    await soon(session.reset());
    await vi.advanceTimersByTimeAsync(1_000);
    expect([session.link.state, net.sockets.length]).toEqual(["open", 2]);
    session.close();
  });

  it("that was closed connects again at the next call", async () => {
    const session = await soon(net.connect());
    session.close();
    expect((await soon(session.step("a"))).step).toBe(1);
    session.close();
  });

  it("goes on elsewhere where the service drains, while nothing is asked and in a step", async () => {
    const session = await soon(net.connect());
    world.inbox.push({ type: "error", code: "stopping", detail: "the service stops", retry_after: 1 });
    await vi.advanceTimersByTimeAsync(2);
    net.last.end(1012, "service restart");
    expect((await soon(session.step("a"))).step).toBe(1);
    const step = session.step("b");
    await vi.advanceTimersByTimeAsync(1);
    world.inbox = [{ type: "error", code: "stopping", detail: "the service stops", retry_after: 1 }];
    expect((await soon(step)).step).toBe(2);
    expect(world.history).toEqual(["a", "b"]);
    session.close();
  });

  it("has a call connect that comes while it connects by itself", async () => {
    const session = await soon(net.connect());
    world.down = true;
    net.last.end(1006);
    await vi.advanceTimersByTimeAsync(30_000); // pauses have grown to seconds
    world.down = false;
    const began = Date.now();
    expect((await soon(session.step("a"))).step).toBe(1);
    expect(Date.now() - began).toBeLessThan(100);
    session.close();
  });

  it("keeps a call's deadline while another is under way", async () => {
    const session = await soon(net.connect());
    net.dead = true;
    const controller = new AbortController();
    const first = expect(session.step("a", { timeout: 30 })).rejects.toThrow(DeadlineExceeded);
    const second = expect(session.step("b", { timeout: 5 })).rejects.toThrow(DeadlineExceeded);
    const third = expect(session.step("c", { signal: controller.signal })).rejects.toThrow("enough");
    await vi.advanceTimersByTimeAsync(100);
    controller.abort(new Error("enough"));
    await third;
    await vi.advanceTimersByTimeAsync(5_000);
    await second;
    await soon(first);
    net.dead = false;
    await expect(soon(session.step("b"))).rejects.toThrow(Unanswered);
    expect((await soon(session.step("a", { timeout: Number.POSITIVE_INFINITY }))).step).toBe(1);
    expect(world.history).toEqual(["a"]);
    session.close();
  });

  it("is left by a signal, and the same call finds out what became of the step", async () => {
    const session = await soon(net.connect());
    net.dead = true;
    const controller = new AbortController();
    const step = session.step("a", { signal: controller.signal });
    const outcome = expect(step).rejects.toThrow("enough");
    await vi.advanceTimersByTimeAsync(50);
    controller.abort(new Error("enough"));
    await outcome;
    net.dead = false;
    await expect(soon(session.step("b"))).rejects.toThrow(Unanswered);
    expect((await soon(session.step("a"))).step).toBe(1);
    const connects = world.connects;
    await expect(soon(session.step("c", { signal: controller.signal }))).rejects.toThrow("enough"); // before it began: nothing is dropped
    expect((await soon(session.step("d"))).step).toBe(2);
    expect(world.connects).toBe(connects);
    expect(world.history).toEqual(["a", "d"]);
    session.close();
  });

  it("is not put elsewhere on the server while a step has no answer", async () => {
    const asked: string[] = [];
    const there = { session_id: "s", model: "m", version: "1", step: 0, position: 0, created_at: "then", expires_at: "later" };
    const fetch = ((url: string) => {
      asked.push(url);
      return Promise.resolve(Response.json(there));
    }) as typeof globalThis.fetch;
    const session = await soon(net.connect({ fetch }));
    await soon(session.step("a"));
    net.dead = true;
    await expect(soon(session.step("b", { timeout: 5 }))).rejects.toThrow(DeadlineExceeded);
    for (const call of [() => session.reset(), () => session.upload(new Uint8Array(3))]) await expect(soon(call())).rejects.toThrow(Unanswered);
    expect([asked, session.number, session.position]).toEqual([[], 1, 1]);
    net.dead = false;
    expect((await soon(session.step("b"))).step).toBe(2);
    await soon(session.reset());
    expect([asked, session.number, session.position]).toEqual([["http://x/sessions/s/reset"], 0, 0]);
    session.close();
  });

  it("does not make a call whose deadline passed while it waited for its turn", async () => {
    const session = await soon(net.connect());
    net.dead = true;
    const first = session.step("a");
    const second = expect(session.step("b", { timeout: 5 })).rejects.toThrow(DeadlineExceeded);
    await vi.advanceTimersByTimeAsync(6_000);
    await second;
    net.dead = false;
    expect((await soon(first)).step).toBe(1);
    expect((await soon(session.step("c"))).step).toBe(2);
    expect(world.history).toEqual(["a", "c"]);
    session.close();
  });

  it("does not make a call that was left while it waited for its turn", async () => {
    const session = await soon(net.connect());
    const controller = new AbortController();
    const first = session.step("a");
    const second = expect(session.step("b", { signal: controller.signal })).rejects.toThrow("enough");
    controller.abort(new Error("enough"));
    await second;
    expect((await soon(first)).step).toBe(1);
    expect((await soon(session.step("c"))).step).toBe(2);
    expect(world.history).toEqual(["a", "c"]);
    session.close();
  });

  it("whose message no server would take does not send it again", async () => {
    const session = await soon(net.connect());
    const step = session.step("a");
    await vi.advanceTimersByTimeAsync(0);
    const outcome = expect(soon(step)).rejects.toThrow(ProtocolError);
    net.last.end(1009, "too long");
    await outcome;
    session.close();
  });
});

describe("a generate", () => {
  it("that is left early is cancelled at once, and the next call comes after it", async () => {
    const session = await soon(net.connect());
    const generation = session.generate({ maxChars: 1000 });
    const left = (async () => {
      let text = "";
      for await (const { char } of generation) {
        text += char;
        if (text.length === 3) break;
      }
      return text;
    })();
    expect(await soon(left)).toBe(drawn(1, 3));
    const result = await soon(session.step("a"));
    expect(generation.reason).toBe("cancelled");
    expect(generation.text.startsWith(drawn(1, 3))).toBe(true);
    expect(generation.text.length).toBeLessThan(20);
    expect([result.step, result.position]).toEqual([2, world.position]);
    session.close();
  });

  it("is ended by cancel, and shows what was drawn until then", async () => {
    const session = await soon(net.connect());
    const generation = session.generate({ maxChars: 1000 });
    const shown = collected(generation);
    await vi.advanceTimersByTimeAsync(20);
    session.cancel();
    expect(await soon(shown)).toBe(generation.text);
    expect([generation.reason, world.generate?.text.join("")]).toEqual(["cancelled", generation.text]);
    session.close();
  });

  it("that is left by a signal goes on with the same call, from its first character", async () => {
    const session = await soon(net.connect());
    const controller = new AbortController();
    const shown = expect(collected(session.generate({ maxChars: 6, signal: controller.signal }))).rejects.toThrow("enough");
    await vi.advanceTimersByTimeAsync(5);
    controller.abort(new Error("enough"));
    await shown;
    await expect(soon(session.step("a"))).rejects.toThrow(Unanswered);
    expect(await soon(collected(session.generate({ maxChars: 6 })))).toBe(drawn(1, 6));
    expect(world.history).toEqual(["generate 1"]);
    session.close();
  });

  it("that nobody iterates over is never sent", async () => {
    const session = await soon(net.connect());
    session.generate({ maxChars: 3 });
    expect((await soon(session.step("a"))).step).toBe(1);
    expect(world.history).toEqual(["a"]);
    session.close();
  });

  it("goes on over another connection, cut between two characters that its user takes", async () => {
    const session = await soon(net.connect());
    const generation = session.generate({ maxChars: 6 });
    const chars = generation[Symbol.asyncIterator]();
    const shown = [(await soon(chars.next())).value?.char, (await soon(chars.next())).value?.char];
    net.last.end(1006);
    await vi.advanceTimersByTimeAsync(5_000);
    for (let next = await soon(chars.next()); !next.done; next = await soon(chars.next())) shown.push(next.value.char);
    expect(shown.join("")).toBe(drawn(1, 6));
    expect(net.sockets).toHaveLength(2); // nothing connected by itself in between
    session.close();
  });
});

describe("connecting", () => {
  it("to an address that refuses the handshake fails at once, where the status is known", async () => {
    net.refuses = 403;
    await expect(soon(net.connect())).rejects.toMatchObject({ name: "Refused", status: 403, code: "http_403" });
    expect(net.sockets).toHaveLength(1);
    net.refuses = 503;
    await expect(soon(net.connect({ timeout: 5 }))).rejects.toThrow(DeadlineExceeded);
    expect(net.sockets.length).toBeGreaterThan(4);
  });

  it.each(["x", "ftp://x", "ws://x", ""])("to %j is refused", (url) => {
    expect(() => new Client(url)).toThrow(ProtocolError);
  });

  it("takes an option that there is not for a mistake", async () => {
    await expect(net.connect({ layuot: "kinect20" })).rejects.toThrow(TypeError);
    const session = await soon(net.connect({ topK: null }));
    expect(() => session.generate({ max_chars: 3 } as object)).toThrow(/maxChars/);
    session.close();
  });

  it("keeps the path below which a proxy shows the service", () => {
    expect(new Client("https://h:1/a/b/").url).toBe("https://h:1/a/b");
    expect(new Client("http://h?x#y").url).toBe("http://h");
  });
});

describe("HTTP", () => {
  it("sends the key as a header, and repeats what is lost", async () => {
    const asked: [string, RequestInit | undefined][] = [];
    const fetch = ((url: string, init?: RequestInit) => {
      asked.push([url, init]);
      return asked.length === 1 ? Promise.reject(new TypeError("fetch failed")) : Promise.resolve(Response.json({ models: [] }));
    }) as typeof globalThis.fetch;
    expect(await soon(new Client("http://x/p", { apiKey: "k", fetch }).models())).toEqual([]);
    expect(asked.map(([url]) => url)).toEqual(["http://x/p/models", "http://x/p/models"]);
    expect(asked[0]?.[1]?.headers).toEqual({ authorization: "Bearer k" });
  });

  it("repeats a step without a number only where the server was not reached", async () => {
    const refusing = (code: string) => (() => Promise.reject(new TypeError("fetch failed", { cause: { code } }))) as typeof globalThis.fetch;
    const step = (code: string) => new Client("http://x", { fetch: refusing(code), timeout: 3 }).predict([[]], { sessionId: "s" });
    await expect(soon(step("ECONNRESET"))).rejects.toMatchObject({ name: "ConnectionLost" });
    await expect(soon(step("ECONNREFUSED"))).rejects.toMatchObject({ name: "DeadlineExceeded" });
  });
});

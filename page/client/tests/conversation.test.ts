/** The client's core against a made-up server behind a network that loses things at random. */

import { describe, expect, it } from "vitest";

import type { Command, Outcome } from "../src/commands.js";
import { Conversation } from "../src/conversation.js";
import { BadInput, DeadlineExceeded, NotFound, ProtocolError, StepConflict, StepGap, Unanswered, Unauthorized, Unavailable } from "../src/errors.js";
import { Chance, drawn, World } from "./world.js";

function made(seed = 0, faults = 0, opening = {}): [World, Conversation] {
  return [new World(new Chance(seed), faults), new Conversation("ws://x/stream/m", opening)];
}

/** What a call throws, which has to be of that kind. */
function thrown<E extends Error>(call: () => unknown, kind: new (...fields: never[]) => E): E {
  try {
    call();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`expected a ${kind.name}`);
}

const text = (chance: Chance) => Array.from({ length: chance.integer(1, 4) }, () => chance.pick(["x", "y", "z"])).join("");

describe("whatever is lost", () => {
  it("applies every step once and shows every character once", () => {
    for (let seed = 0; seed < 600; seed++) {
      const chance = new Chance(seed);
      const [world, talk] = made(seed + 1, chance.integer(0, 40));
      const expected: string[] = [];
      world.run(talk.open(world.patience()));
      for (let wishes = chance.integer(1, 12); wishes > 0; wishes--) oneWish(chance, world, talk, expected);
      expect(world.history, `seed ${seed}`).toEqual(expected);
      expect([talk.step, world.step], `seed ${seed}`).toEqual([expected.length, expected.length]);
    }
  });

  it("tells every event once, with its step", () => {
    for (let seed = 0; seed < 200; seed++) {
      const chance = new Chance(seed);
      const asked = seed % 2 === 0;
      const [world, talk] = made(seed + 1, chance.integer(0, 40), asked ? { events: true } : {});
      const texts = Array.from({ length: chance.integer(1, 8) }, () => text(chance));
      for (const piece of texts) {
        const answer = world.run(talk.feed({ text: piece }, undefined, world.patience()));
        const wanted = Array.from(piece).flatMap((c, i) => (c === "x" && asked ? [i] : []));
        expect(answer.events.map((e) => e.start)).toEqual(wanted);
      }
      expect(world.history).toEqual(texts);
    }
  });
});

function oneWish(chance: Chance, world: World, talk: Conversation, expected: string[]): void {
  const number = talk.step + 1;
  const kind = chance.pick(["step", "step", "step", "whole", "left", "cancelled", "refused", "watch", "cut", "reopened"]);
  if (kind === "step") {
    const piece = text(chance);
    const answer = world.run(talk.feed({ text: piece }, undefined, world.patience()));
    expected.push(piece);
    expect([answer.step, answer.position]).toEqual([number, world.position]);
    expect(answer.chars.map((c) => c.char).join("")).toBe(piece);
  } else if (kind === "refused") {
    thrown(() => world.run(talk.feed({ text: "bad" }, undefined, world.patience())), BadInput);
  } else if (kind === "watch") {
    expect(world.run(talk.watch(true, world.patience())).map((p) => p.size)).toEqual([2]);
  } else if (kind === "cut") {
    world.cut();
  } else {
    const longest = chance.integer(1, 8);
    const emission = world.run(talk.begin({ max_chars: longest }, undefined, world.patience()));
    const some = chance.integer(0, 8);
    const first = world.characters(emission.running, kind === "whole" ? undefined : some);
    if (kind === "left") {
      const begun = emission.started;
      world.run(talk.settle(world.patience()));
      expect(begun).toBe(some > 0);
      if (begun) expected.push(`generate ${number}`);
    } else {
      if (kind === "cancelled") {
        const urgent = talk.cancel();
        if (urgent !== undefined && world.connected) world.take(JSON.parse(urgent) as Record<string, unknown>);
      }
      if (kind === "reopened") {
        world.cut();
        talk.lost();
        world.run(talk.open(world.patience())); // the user opens the session while a generate rests between two characters
      }
      const rest = world.characters(emission.running);
      expect([...first, ...rest].map((c) => c.char).join("")).toBe(emission.text);
      expected.push(`generate ${number}`);
    }
    if (!emission.started) return;
    expect(emission.text).toBe(drawn(number, emission.drawn.length));
    expect(emission.drawn).toEqual(world.generate?.text);
    expect(emission.reason).toBe(world.generate?.reason);
    expect(emission.reason).toBe(emission.drawn.length === longest ? "length" : "cancelled");
    expect(talk.position).toBe(world.position);
  }
}

describe("a step", () => {
  it("without an answer in time is repeated by the same call and bars others", () => {
    const [world, talk] = made();
    world.run(talk.feed({ text: "x" }, undefined, world.patience()));
    world.down = true;
    world.cut();
    const before = world.now;
    const late = thrown(() => world.run(talk.feed({ text: "y" }, undefined, world.patience(30))), DeadlineExceeded);
    expect(late.cause).toBeInstanceOf(Error);
    expect(world.now - before).toBeGreaterThanOrEqual(30);
    expect(world.now - before).toBeLessThan(33);
    world.down = false;
    thrown(() => world.run(talk.feed({ text: "z" }, undefined, world.patience())), Unanswered);
    thrown(() => world.run(talk.begin({ max_chars: 1 }, undefined, world.patience())), Unanswered);
    thrown(() => talk.needAnswers(), Unanswered);
    expect(world.run(talk.feed({ text: "y" }, undefined, world.patience())).step).toBe(2);
    expect(world.history).toEqual(["x", "y"]);
  });

  it("whose answer was lost stays unanswered where the way back is refused", () => {
    const [world, talk] = made();
    world.run(talk.open(world.patience()));
    const take = world.take.bind(world);
    world.take = (message) => {
      take(message);
      world.cut(); // applied, and its answer lost
      world.take = () => world.inbox.push({ type: "error", code: "unauthorized", detail: "the key is gone" });
    };
    thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience())), Unauthorized);
    world.take = take;
    thrown(() => world.run(talk.feed({ text: "y" }, undefined, world.patience())), Unanswered);
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(1);
    expect(world.history).toEqual(["x"]);
  });

  it("over a connection that says nothing any more is repeated over another within the deadline", () => {
    const [world, talk] = made();
    world.run(talk.open(world.patience()));
    const take = world.take.bind(world);
    world.take = (message) => {
      take(message);
      world.inbox = []; // the answer never comes, and nobody tells that the connection is dead
      world.take = take;
    };
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience(60))).step).toBe(1);
    expect(world.connects).toBe(2);
    expect(world.history).toEqual(["x"]);
  });

  it("tells another client's steps as conflict and gap, and leaves the number free", () => {
    const [world, talk] = made();
    world.run(talk.feed({ text: "x" }, undefined, world.patience()));
    const other = new Conversation("ws://x/stream/m", {}, "s");
    world.run(other.feed({ text: "theirs" }, undefined, world.patience()));
    thrown(() => world.run(talk.feed({ text: "mine" }, undefined, world.patience())), StepConflict);
    world.run(other.feed({ text: "more" }, undefined, world.patience()));
    const gap = thrown(() => world.run(talk.feed({ text: "mine" }, undefined, world.patience())), StepGap);
    expect([gap.expectedStep, gap.code, gap.field]).toEqual([4, "step_gap", "step"]);
    expect(world.run(talk.feed({ text: "mine" }, gap.expectedStep, world.patience())).step).toBe(4);
    expect(world.history).toEqual(["x", "theirs", "more", "mine"]);
  });

  it.each(["[1]", "x", '{"type": "watching"}', '{"type": "result", "step": 9, "position": 1}', '{"type": "result"}'])(
    "that %s answers is a protocol error, and drops the connection",
    (raw) => {
      const [world, talk] = made();
      world.run(talk.open(world.patience()));
      world.raw = raw;
      thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience())), ProtocolError);
      world.raw = undefined;
      expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(1);
      expect(world.history).toEqual(["x"]);
    },
  );

  it.each([
    [[[Number.NaN]], "not_finite", "frames[0][0]"],
    [[new Float32Array([1, Number.POSITIVE_INFINITY])], "not_finite", "frames[0][1]"],
    [() => 1, "invalid_input", "frames"],
    [new Map(), "invalid_input", "frames"],
    [10n, "invalid_input", "frames"],
  ])("of what JSON does not know (%s) is refused before it is sent", (frames, code, field) => {
    const [world, talk] = made();
    const refusal = thrown(() => world.run(talk.feed({ frames }, undefined, world.patience())), BadInput);
    expect([refusal.code, refusal.field]).toEqual([code, field]);
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(1);
  });
});

describe("patience", () => {
  it("lets pauses grow, so that the number of tries stays small", () => {
    const [world, talk] = made();
    world.down = true;
    thrown(() => world.run(talk.open(world.patience(60))), DeadlineExceeded);
    expect(world.connects).toBeGreaterThan(30);
    expect(world.connects).toBeLessThan(70);
  });

  it("names a server that stays busy as the cause, and keeps its connection", () => {
    const [world, talk] = made();
    world.run(talk.open(world.patience()));
    world.busy = Number.POSITIVE_INFINITY;
    const late = thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience(20))), DeadlineExceeded);
    expect(late.cause).toBeInstanceOf(Unavailable);
    expect(world.connects).toBe(1);
    expect(Math.abs(world.now - 20)).toBeLessThan(4);
  });
});

describe("a generate", () => {
  it("that failed goes on with the same call, and shows all of it", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience(5)));
    expect(world.characters(emission.running, 2)).toHaveLength(2);
    world.down = true;
    world.cut();
    thrown(() => world.characters(emission.running, 1), DeadlineExceeded);
    world.down = false;
    thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience())), Unanswered);
    const again = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience(5)));
    expect(world.characters(again.running).map((c) => c.char).join("")).toBe(drawn(1, 6));
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(2);
  });

  it("that failed and is cancelled is settled by the next call", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience(5)));
    world.characters(emission.running, 2);
    world.down = true;
    world.cut();
    thrown(() => world.characters(emission.running, 1), DeadlineExceeded);
    world.down = false;
    talk.cancel();
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(2);
    expect(emission.reason).toBe("cancelled");
    expect(world.history).toEqual(["generate 1", "x"]);
  });

  it("whose plan was dropped by the shell bars other calls, and goes on with the same one", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    world.characters(emission.running, 2);
    emission.running?.return(); // a signal
    world.cut();
    talk.lost();
    thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience())), Unanswered);
    const again = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    expect(world.characters(again.running).map((c) => c.char).join("")).toBe(drawn(1, 6));
  });

  it("that a busy server cannot repeat now, with a cancel behind it, loses no character", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    world.characters(emission.running, 2);
    world.cut();
    const numbered = world.numbered.bind(world);
    world.numbered = () => {
      world.numbered = numbered;
      world.inbox.push({ type: "error", code: "overloaded", detail: "not now" });
    };
    world.run(talk.settle(world.patience()));
    expect([emission.drawn, emission.reason]).toEqual([world.generate?.text, "cancelled"]);
    expect(world.run(talk.feed({ text: "x" }, undefined, world.patience())).step).toBe(2);
  });

  it("takes a cancel that comes in a busy server's pause along with its next try", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    world.characters(emission.running, 2);
    world.cut();
    const numbered = world.numbered.bind(world);
    world.numbered = () => world.inbox.push({ type: "error", code: "overloaded", detail: "not now" });
    let outcome: Outcome = undefined;
    for (;;) {
      const command = emission.running?.next(outcome).value as Command;
      if (command.kind === "sleep" && world.connected) break; // the pause that follows the refusal
      outcome = world.perform(command);
    }
    world.numbered = numbered;
    expect(talk.cancel()).toBeUndefined();
    world.characters(emission.running);
    expect([emission.drawn, emission.reason]).toEqual([world.generate?.text, "cancelled"]);
  });

  it("finds out at once that its session was opened anew while its user looked at a character", () => {
    const [world, talk] = made();
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    world.characters(emission.running, 2);
    world.cut();
    talk.lost();
    world.run(talk.open(world.patience()));
    const before = world.now;
    expect(world.characters(emission.running)).toHaveLength(4);
    expect(world.now - before).toBeLessThan(1);
  });

  it("with the wish of one that was left is another generate", () => {
    const [world, talk] = made();
    for (const number of [1, 2]) {
      const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
      expect(world.characters(emission.running, 2).map((c) => c.char).join("")).toBe(drawn(number, 2));
    }
    expect(world.history).toEqual(["generate 1", "generate 2"]);
  });

  it("that was cut is told by a resumed session, and goes on with its number", () => {
    const [world, talk] = made();
    world.run(talk.feed({ text: "xy" }, undefined, world.patience()));
    const emission = world.run(talk.begin({ max_chars: 6 }, undefined, world.patience()));
    world.characters(emission.running, 3);
    world.cut();
    const later = new Conversation("ws://x/stream/m", {}, "s");
    world.run(later.open(world.patience()));
    expect([later.step, later.pending]).toEqual([2, { step: 2, text: world.generate?.text.join("") }]);
    const goesOn = world.run(later.begin({ max_chars: 6 }, later.pending?.step, world.patience()));
    expect(world.characters(goesOn.running).map((c) => c.char).join("")).toBe(drawn(2, 6));
    expect(later.pending).toBeUndefined();
  });
});

describe("a rewind", () => {
  it("takes the next number, the same one until it is answered, and bars other calls", () => {
    const [world, talk] = made();
    world.run(talk.feed({ text: "xy" }, undefined, world.patience()));
    expect([talk.claimRewind({ step: 0 }), talk.claimRewind({ step: 0 })]).toEqual([2, 2]);
    thrown(() => talk.claimRewind({ step: 1 }), Unanswered);
    thrown(() => world.run(talk.feed({ text: "z" }, undefined, world.patience())), Unanswered);
    talk.rewound(2, 0);
    expect([talk.step, talk.position]).toEqual([2, 0]);
    talk.claimRewind({ mark: "none" });
    talk.notRewound();
    talk.needAnswers();
  });
});

describe("a session", () => {
  it("throws what its open is refused with", () => {
    const [world, talk] = made();
    world.take = () => world.inbox.push({ type: "error", code: "unknown_session", detail: "there is none" });
    thrown(() => world.run(talk.open(world.patience())), NotFound);
  });

  it("is watched also over the next connection", () => {
    const [world, talk] = made();
    world.run(talk.watch(true, world.patience()));
    world.cut();
    const { states } = world.run(talk.feed({ text: "x" }, undefined, world.patience()));
    expect(states?.shape).toEqual([1, 2]);
    expect([...(states?.values ?? [])]).toEqual([1, -2]);
  });

  it("is never taken for another's", () => {
    const [world, talk] = made();
    world.run(talk.open(world.patience()));
    world.cut();
    world.take = () => world.inbox.push({ type: "opened", session_id: "t", step: 0, position: 0, model: "m", version: "1", pending: null });
    thrown(() => world.run(talk.feed({ text: "x" }, undefined, world.patience())), ProtocolError);
  });
});

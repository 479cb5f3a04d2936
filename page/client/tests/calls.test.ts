/** The HTTP calls, answered from a list. */

import { describe, expect, it } from "vitest";

import * as calls from "../src/calls.js";
import { type Command, HttpResponse, Lost, type Outcome, type Plan } from "../src/commands.js";
import {
  BadInput,
  ConnectionLost,
  DeadlineExceeded,
  NotFound,
  ProtocolError,
  Refused,
  SessionExpired,
  SessionLimit,
  StepConflict,
  Unavailable,
} from "../src/errors.js";
import { Patience } from "../src/patience.js";

let now = 0;
const patience = (seconds = 60) => new Patience(seconds, () => now, () => 1);
const lost = (sent = true, final = false) => new Lost(new Error("cut"), final, sent);
const INFO = { session_id: "s", model: "m", version: "1", step: 3, position: 9, created_at: "a", expires_at: "b" };

function answer(status: number, body: unknown = {}, headers: Record<string, string> = {}): HttpResponse {
  return new HttpResponse(status, headers, new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body)));
}

/** Answer a plan's requests from the list, and return what it returned and all that it asked for. */
function drive<R>(plan: Plan<R>, outcomes: Outcome[]): { value: R; asked: Command[]; slept: number[] } {
  const asked: Command[] = [];
  const slept: number[] = [];
  let outcome: Outcome = undefined;
  for (;;) {
    const turn: IteratorResult<Command, R> = plan.next(outcome);
    if (turn.done) {
      expect(outcomes).toEqual([]);
      return { value: turn.value, asked, slept };
    }
    if (turn.value.kind === "sleep") {
      slept.push(turn.value.seconds);
      now += turn.value.seconds;
      outcome = undefined;
    } else {
      asked.push(turn.value);
      outcome = outcomes.shift();
    }
  }
}

describe("a request", () => {
  it("is repeated until it is answered", () => {
    const busy = answer(503, { code: "overloaded", detail: "full" }, { "retry-after": "3" });
    const { value, asked, slept } = drive(calls.look("a/b", patience()), [lost(), busy, answer(502, "<html>"), answer(200, INFO)]);
    expect(value).toEqual({ sessionId: "s", model: "m", version: "1", step: 3, position: 9, createdAt: "a", expiresAt: "b", keep: 0 });
    expect(asked).toHaveLength(4);
    expect(asked[0]).toMatchObject({ method: "GET", path: "/sessions/a%2Fb", headers: {}, content: undefined });
    expect(slept).toEqual([0.05, 3, 0.2]);
  });

  it("of a step without a number is not repeated once the server may have seen it", () => {
    const step = () => calls.predict([[]], { session_id: "s" }, patience());
    expect(() => drive(step(), [lost()])).toThrow(ConnectionLost);
    expect(() => drive(step(), [answer(502, "")])).toThrow(Refused);
    const body = { model: "m", version: "1", predictions: [], session: { session_id: "s", step: 4, position: 5 } };
    expect(drive(step(), [lost(false), answer(200, body)]).value).toMatchObject({ step: 4, position: 5 });
    expect(drive(calls.predict([[]], { session_id: "s", step: 4 }, patience()), [lost(), answer(200, body)]).value.step).toBe(4);
    expect(() => drive(calls.rewind("s", { step: 1 }, undefined, patience()), [lost()])).toThrow(ConnectionLost);
    expect(drive(calls.rewind("s", { step: 1 }, 4, patience()), [lost(), answer(200, { ...INFO, rewound_to: 1 })]).value.rewoundTo).toBe(1);
  });

  it("of a graph or an explanation names the version where one is asked for, and is repeated", () => {
    const bytes = new HttpResponse(200, {}, new Uint8Array([1]));
    expect(drive(calls.graph("a b", "2", patience()), [lost(), bytes]).asked[1]).toMatchObject({ path: "/models/a%20b/graph?version=2" });
    expect(drive(calls.graph("m", undefined, patience()), [bytes]).value).toEqual(new Uint8Array([1]));
    const body = { model: "m", version: "1", logit: 1.5, gradient: [0], relevance: [0], off: [0.5] };
    const { asked, value } = drive(calls.explain("a", { label: "b" }, patience()), [lost(), answer(200, body)]);
    expect(value).toEqual(body);
    expect(asked[1]).toMatchObject({ path: "/explain", content: '{"sequence":"a","label":"b"}' });
    expect(() => drive(calls.explain("a", {}, patience()), [answer(200, { ...body, off: null })])).toThrow(ProtocolError);
  });

  it("ends at the deadline, and names what stood in the way", () => {
    const many = Array.from({ length: 40 }, () => lost());
    try {
      drive(calls.models(patience(10)), many);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(DeadlineExceeded);
      expect((error as Error).cause).toEqual(new Error("cut"));
    }
  });

  it("that would fail again is not repeated", () => {
    expect(() => drive(calls.models(patience()), [lost(true, true)])).toThrow("cut");
  });

  it.each([
    [404, { code: "unknown_session", detail: "d" }, NotFound, "unknown_session"],
    [410, { code: "session_expired", detail: "d" }, SessionExpired, "session_expired"],
    [409, { code: "step_conflict", detail: "d", field: "step" }, StepConflict, "step_conflict"],
    [422, { code: "invalid_input", detail: "d", field: "sequences[0]" }, BadInput, "invalid_input"],
    [429, { code: "session_limit", detail: "d" }, SessionLimit, "session_limit"],
    [400, { error: { message: "d", code: "out_of_alphabet", param: "prompt" } }, BadInput, "out_of_alphabet"],
    [418, "a teapot", Refused, "http_418"],
    [500, { code: "constructor", detail: "no code of ours" }, Refused, "constructor"],
  ])("answered %s %j is refused", (status, body, kind, code) => {
    try {
      drive(calls.models(patience()), [answer(status, body)]);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(kind);
      expect((error as Refused).name).toBe(kind.name);
      expect((error as Refused).code).toBe(code);
      expect((error as Refused).status).toBe(status);
    }
  });

  it("that a proxy refuses for now is repeated", () => {
    expect(drive(calls.models(patience()), [answer(503, "busy"), answer(200, { models: [{ name: "m" }] })]).value).toEqual([{ name: "m" }]);
    try {
      drive(calls.models(patience(1)), Array.from({ length: 40 }, () => answer(503, "busy")));
      expect.unreachable();
    } catch (error) {
      expect((error as Error).cause).toBeInstanceOf(Unavailable);
    }
  });

  it.each(["", "[]", "{}", '{"models": [1]}', '{"models": {}}'])("answered with %j is a protocol error", (body) => {
    expect(() => drive(calls.models(patience()), [answer(200, body)])).toThrow(ProtocolError);
  });
});

describe("a session", () => {
  it("that is gone at the second try of its end was ended by the first", () => {
    const gone = answer(410, { code: "session_expired", detail: "d" });
    drive(calls.remove("s", patience()), [lost(), gone]);
    expect(() => drive(calls.remove("s", patience()), [gone])).toThrow(SessionExpired);
  });

  it("needs an id", () => {
    expect(() => drive(calls.look("", patience()), [])).toThrow(BadInput);
  });

  it("is opened from a state, and put where a state stands, by bytes", () => {
    const state = new Uint8Array([1, 2]);
    for (const plan of [calls.newSessionAt(state, patience()), calls.upload("s", state, patience())]) {
      const { asked } = drive(plan, [answer(200, INFO)]);
      expect(asked[0]).toMatchObject({ content: state, headers: { "content-type": "application/octet-stream" } });
    }
  });
});

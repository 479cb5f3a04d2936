/** Reading what the server answers. */

import { describe, expect, it } from "vitest";

import { char, neurons, predicted, result, sessionInfo } from "../src/answers.js";
import { contentOf } from "../src/options.js";

describe("a result", () => {
  it("has no log-probability of a character that was read as the symbol for unknown ones", () => {
    const body = { type: "result", step: 1, position: 2, chars: [{ char: "a", logprob: -1 }, { char: "\ufffd", logprob: null }], next: [] };
    expect(result(body).chars).toEqual([
      { char: "a", logprob: -1 },
      { char: "\ufffd", logprob: null },
    ]);
    expect(() => result({ ...body, chars: [{ char: "a" }] })).toThrow("a number was expected");
  });

  it("has what the server's has, and nothing in place of what is not there", () => {
    const body = { type: "result", step: 1, position: 2, predictions: [{ label: "a", score: 0.5, top: [{ label: "a", score: 0.5 }], steps: 3 }] };
    expect(result(body)).toEqual({
      step: 1,
      position: 2,
      chars: [],
      next: [],
      predictions: [{ label: "a", score: 0.5, top: [{ label: "a", score: 0.5 }], frames: 3 }],
      events: [],
      warnings: [],
    });
    const more = { scores: [[0.5, 0.5]], outputs: { y: [1] }, warnings: ["upside down"], replaced: { count: 1 } };
    expect(result({ step: 1, position: 2, ...more })).toMatchObject(more);
  });
});

describe("a result of a model of sentences", () => {
  it("has the answer to each question, and an empty label where nothing was asked", () => {
    const top = [{ label: "attic", score: 0.75 }];
    const asked = { label: "attic", score: 0.75, top, steps: 3, answers: [{ sentence: 2, label: "attic", score: 0.75, top }] };
    const told = { label: "", score: 0, top: [], steps: 1, answers: [] };
    const { predictions } = result({ type: "result", step: 1, position: 3, predictions: [asked, told] });
    expect(predictions).toEqual([
      { label: "attic", score: 0.75, top, frames: 3, answers: asked.answers },
      { label: "", score: 0, top: [], frames: 1, answers: [] },
    ]);
  });

  it("comes of a list of texts", () => {
    expect(contentOf(["anna sang"])).toEqual({ sentences: ["anna sang"] });
    expect(contentOf("anna sang")).toEqual({ text: "anna sang" });
    expect(contentOf([[1, 2]])).toEqual({ values: [[1, 2]] });
    expect(contentOf([])).toEqual({ frames: [] });
  });

  it("of numbers and of rows is values, also where the last fills a window", () => {
    const rows = [[0.1], [null]];
    const samples = [[0.1, 0.2], [0.1, null], [null], rows, [[null]], [[0.5, 1]], [[null, 0.5]], new Float32Array(4), [new Float32Array(3)]];
    for (const content of samples) expect(contentOf(content)).toEqual({ values: content });
  });

  it("of joints is frames, also where none was seen", () => {
    for (const content of [[[null, null]], [[null, [0, 0, 0]]], [[[0, 0, 0]]], [[[null, null], [[0, 0, 0], null]]]]) {
      expect(contentOf(content)).toEqual({ frames: content });
    }
  });
});

describe("neurons", () => {
  it("are read from half precision, to the bit", () => {
    const bits = [0x0000, 0x8000, 0x3c00, 0xc000, 0x3555, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
    const bytes = bits.flatMap((half) => [half & 255, half >> 8]);
    const { values, shape } = neurons({ states: btoa(String.fromCharCode(...bytes)), shape: [3, 4] }) ?? { values: [], shape: [] };
    expect(shape).toEqual([3, 4]);
    const smallest = 2 ** -24;
    expect([...values]).toEqual([0, -0, 1, -2, 0.333251953125, smallest, 1023 * smallest, 2 ** -14, 65504, Infinity, -Infinity, NaN]);
  });

  it("of another size than their shape are refused", () => {
    expect(() => neurons({ states: "AAA=", shape: [1, 2] })).toThrow(TypeError);
    expect(() => char({ char: "a", logprob: 0, states: "AAA=", shape: [1] })).toThrow(TypeError);
    expect(neurons({})).toBeUndefined();
  });
});

describe("a session and a prediction", () => {
  it("have optional fields only where the server has them", () => {
    const body = { session_id: "s", model: "m", version: "1", step: 0, position: 0 };
    expect(sessionInfo(body)).toEqual({ sessionId: "s", model: "m", version: "1", step: 0, position: 0, createdAt: "", expiresAt: "", keep: 0 });
    expect(sessionInfo({ ...body, keep: 2, kept: [0], marks: { a: 0 } })).toMatchObject({ keep: 2, kept: [0], marks: { a: 0 } });
    expect(predicted({ model: "m", version: "1", predictions: [] })).toEqual({ model: "m", version: "1", predictions: [], warnings: [] });
    expect(predicted({ model: "m", version: "1", outputs: { y: [[1]] } }).outputs).toEqual({ y: [[1]] });
  });
});

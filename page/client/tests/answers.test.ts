import { expect, test } from "vitest";
import { result } from "../src/answers.js";

test("a character that was read as the symbol for unknown ones has no log-probability", () => {
  const body = { type: "result", step: 1, position: 2, chars: [{ char: "a", logprob: -1 }, { char: "\ufffd", logprob: null }], next: [] };
  expect(result(body).chars).toEqual([
    { char: "a", logprob: -1 },
    { char: "\ufffd", logprob: null },
  ]);
  expect(() => result({ ...body, chars: [{ char: "a" }] })).toThrow("a number was expected");
});

import { expect, test } from "vitest";
import { share } from "../src/colour.ts";

test("a share lies between 0 and 1", () => {
  expect(share(5, 0, 10)).toBe(0.5);
  expect(share(-5, 0, 10)).toBe(0);
  expect(share(50, 0, 10)).toBe(1);
  expect(share(3, 3, 3)).toBe(0);
});

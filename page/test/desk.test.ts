import { expect, test } from "vitest";
import { desk, modelsOf, streams } from "../src/desk.ts";
import type { Model } from "../src/service.ts";

function model(name: string, ...told: object[]): Model {
  return { name, kind: "action", modality: "skeleton", versions: told } as unknown as Model;
}

test("no session is offered of a model whose newest version looks at whole sequences", () => {
  const before = model("before", {});
  const both = model("both", { streams: true }, { streams: false });
  const back = model("back", { streams: false }, { streams: true });
  expect([before, both, back].map(streams)).toEqual([true, false, true]);
  desk.models.set([before, both, back]);
  expect(modelsOf("skeleton").map((m) => m.name)).toEqual(["before", "back"]);
});

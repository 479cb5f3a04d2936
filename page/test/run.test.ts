import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Run, type Clip } from "../src/action/run.ts";
import { unexplained } from "../src/action/why.tsx";
import { Writing } from "../src/characters/writing.ts";
import { Session } from "../src/connection.ts";
import { writeState } from "../src/local/state_file.ts";
import { WatchedMotion } from "../src/neurons/source.ts";
import type { Model, SessionInfo, Version } from "../src/service.ts";

/** What was asked of the service, in order. */
const asked: string[] = [];
/** Sessions that were opened: by which options, and what each was fed with. */
const opened: { id: string; options: Record<string, unknown>; steps: unknown[] }[] = [];
let served = new Map<string, () => Promise<Response>>();
let opening: Promise<void> = Promise.resolve();

vi.mock("../client/src/index.ts", () => ({
  Unauthorized: class extends Error {},
  Client: class {
    async session(_: string, options: Record<string, unknown>) {
      await opening;
      const session = { id: (options["sessionId"] as string | null) ?? `made ${opened.length}`, options, steps: [] as unknown[] };
      opened.push(session);
      return {
        id: session.id,
        version: options["sessionId"] ? "1" : "2",
        number: 0,
        position: 0,
        close: () => undefined,
        step: (content: unknown[], more: object) => {
          session.steps.push(more);
          return Promise.resolve({ scores: content.map(() => [0.75, 0.25]), predictions: [{ label: "a" }], warnings: [] });
        },
      };
    }
  },
}));

beforeEach(() => {
  asked.length = opened.length = 0;
  opening = Promise.resolve();
  served = new Map();
  vi.stubGlobal("document", { baseURI: "http://service/" });
  vi.stubGlobal("sessionStorage", { getItem: () => null });
  vi.stubGlobal("requestAnimationFrame", () => 0);
  vi.stubGlobal("fetch", (url: URL, { method = "GET" }: RequestInit = {}) => {
    const route = `${method} ${decodeURIComponent(url.pathname)}`;
    asked.push(route);
    return served.get(route)?.() ?? Promise.resolve(Response.json({}));
  });
});
afterEach(() => vi.unstubAllGlobals());

const layout = (version: string, labels: string[]) =>
  ({ version, digest: version.repeat(64), labels, other_below: null, persons: 1, dims: 3, hz: 30, layout: "two", layouts: { two: { joints: 2, joint_names: ["head", "hip"] } }, state: [] }) as unknown as Version;
const model: Model = { name: "toy", kind: "action", modality: "skeleton", versions: [layout("1", ["a", "old"]), layout("2", ["a", "new"])] };
const handed = { session_id: "theirs", model: "toy", version: "1", step: 3, position: 9 } as SessionInfo;
const frame = [[0, 0, 0], [0, 1, 0]];
const clip: Clip = { name: "a clip", hz: 30, frames: [frame, frame] };
const told = (body: unknown) => () => Promise.resolve(Response.json(body));
const settle = () => new Promise((done) => setTimeout(done, 5));

/** A run that a camera has fed with a frame, and has left. */
async function afterCamera(): Promise<Run> {
  const run = new Run(model);
  run.follow("the camera", { layout: "mediapipe33", axes: "-x -y z" });
  run.see({ sent: frame, shown: frame, seconds: 1 });
  await settle();
  run.leave();
  expect(run.frames.length).toBe(1);
  return run;
}

test("what follows a camera goes into another session, for a session keeps its joints and axes", async () => {
  const run = await afterCamera();
  expect(run.frames.length).toBe(1); // what was seen stays until then
  run.play(clip, false);
  expect([run.frames.length, run.timed]).toEqual([0, false]);
  run["next"]();
  await settle();
  expect(opened.map(({ options }) => options["layout"] ?? options["hz"])).toEqual(["mediapipe33", 30]);
  expect(run.frames.length).toBe(2);
  expect(asked).toEqual(["DELETE /sessions/made 0"]);
});

test("run here after a camera takes another session's state down, not the camera's", async () => {
  const run = await afterCamera();
  expect(run.movable).toBe(true);
  await run.goHere();
  expect(asked.filter((route) => route.includes("/state"))).toEqual(["GET /sessions/made 1/state"]);
  expect(opened[1]!.options["layout"]).toBeUndefined();
});

test("a session runs here by its own version, and by no other graph than its state's", async () => {
  const state = (metadata: object) => () =>
    Promise.resolve(new Response(writeState({ metadata: { format_version: "1", model: "toy", step: "3", position: "9", ...metadata }, state: new Float32Array(4) })));
  const refusal = async (metadata: object) => {
    served.set("GET /sessions/theirs/state", state(metadata)).set("GET /models/toy", told(model));
    const run = new Run(model, handed);
    run.play(clip, false);
    run["next"]();
    await settle();
    await run.goHere();
    return (run.refusal as Error).message;
  };
  expect(await refusal({ version: "3", digest: "3".repeat(64) })).toBe("The session is of toy 3, which is not served any more: expected toy 1, 2.");
  expect(await refusal({ version: "1", digest: "2".repeat(64) })).toContain("another file of toy 1 than the session's state is of: expected sha256 22222222…, got 11111111…");
  expect(await refusal({ version: "1", digest: "1".repeat(64), carry_times: "0" })).toContain("by its moments");
  expect(asked.filter((route) => route.includes("/graph"))).toEqual([]);
});

test("a handed session is shown as its own version has it, until another is begun", async () => {
  const run = new Run(model, handed);
  expect(run.version.version).toBe("1");
  run.learn({ ...model, versions: model.versions.map((version) => ({ ...version, kernel: "full" })) });
  expect([run.version.version, run.version.kernel]).toEqual(["1", "full"]);
  expect([run.versionFor(30, false).version, run.versionFor(30, true).version]).toEqual(["1", "2"]);
  run.play(clip, false);
  run["next"]();
  await settle();
  expect([run.version.version, run.versionFor(15, false).version]).toEqual(["1", "2"]);
  run.play(clip, true);
  expect(run.version.version).toBe("2");
});

test("the version that a session was opened with is told, whatever the list says", async () => {
  const run = new Run({ ...model, versions: [...model.versions, layout("3", ["a", "newest"])] });
  run.play(clip, false);
  run["next"]();
  await settle();
  expect(run.version.version).toBe("2");
});

test("what a camera saw is not explained, neither while it is followed nor after", async () => {
  const run = await afterCamera();
  const version = model.versions[1]!;
  expect(unexplained(run, version)).toContain("What a camera saw cannot be explained");
  expect(unexplained({ timed: false, hz: 15, frames: run.frames }, version)).toContain("these are 15");
  expect(unexplained({ timed: false, hz: 30, frames: run.frames }, version)).toBeNull();
  expect(unexplained({ timed: true, hz: 30, frames: [] }, version)).toBeNull();
});

test.each(["motions", "text"])("a fork of %s that were left while it was made is deleted", async (kind) => {
  let answer = (): void => undefined;
  const waits = new Promise<void>((done) => (answer = done));
  served.set("POST /sessions/made 0/fork", () => waits.then(() => Response.json({ ...handed, session_id: "twin" })));
  const source = kind === "text" ? new Writing(model) : new WatchedMotion(model, model.versions[1]!);
  const made = source.fork();
  await settle();
  expect(asked).toEqual(["POST /sessions/made 0/fork"]);
  source.close(true);
  answer();
  await expect(made).rejects.toThrow("was closed");
  await settle();
  expect(asked.slice(1).sort()).toEqual(["DELETE /sessions/made 0", "DELETE /sessions/twin"]);
});

test("a session that is left while it is being opened is deleted", async () => {
  let open = (): void => undefined;
  opening = new Promise((done) => (open = done));
  const session = new Session("toy");
  void session.open();
  session.forget();
  open();
  await settle();
  expect(asked).toEqual(["DELETE /sessions/made 0"]);
  new Session("toy", {}, "theirs").forget();
  new Session("toy").forget();
  await settle();
  expect(asked.slice(1)).toEqual(["DELETE /sessions/theirs"]);
});

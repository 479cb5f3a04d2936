import { afterEach, expect, test, vi } from "vitest";
import { Capture, picture } from "../src/camera/capture.ts";
import { Placing, shownOf, type Landmark } from "../src/camera/landmarks.ts";
import { CameraProblem, openCamera } from "../src/camera/opening.ts";
import { Pose, type Solution } from "../src/camera/pose.ts";

afterEach(() => vi.useRealTimers());

const refusing = (name: string) => ({ getUserMedia: () => Promise.reject(Object.assign(new Error("told by the browser"), { name })) });

test("each way in which there is no camera has a sentence of its own", async () => {
  await expect(openCamera(refusing("NotAllowedError"), true)).rejects.toThrow("was not allowed to use the camera");
  await expect(openCamera(refusing("NotFoundError"), true)).rejects.toThrow("No camera was found.");
  await expect(openCamera(refusing("NotReadableError"), true)).rejects.toThrow("another program may be using it");
  await expect(openCamera(refusing("StrangeError"), true)).rejects.toThrow("cannot be opened: told by the browser");
  await expect(openCamera(refusing("NotAllowedError"), false)).rejects.toThrow("only to pages of localhost or of HTTPS");
  await expect(openCamera(null, true)).rejects.toThrow("gives pages no camera");
});

/** A body of 33 landmarks whose hips are at one place and whose shoulders are above them, so high. */
function body(x: number, y: number, trunk: number, visibility = 1): Landmark[] {
  return Array.from({ length: 33 }, (_, i) => ({ x, y: i === 11 || i === 12 ? y - trunk : y, z: 0.1, visibility }));
}

test("a step aside, which the world's landmarks have not, is taken from the picture", () => {
  const placing = new Placing();
  const world = body(0, 0, 0.5);
  const middle = placing.frame({ world, picture: body(0.5, 0.5, 0.25) }, 400, 400);
  expect(middle[23]).toEqual([0, 0, 0.1]);
  const aside = placing.frame({ world, picture: body(0.75, 0.5, 0.25) }, 400, 400);
  expect(aside[23]![0]).toBeCloseTo(0.5); // 100 pixels, of which the trunk has 100 to half a metre
  expect(aside[11]![1]).toBeCloseTo(-0.5);
});

test("one picture with a wrong trunk hardly moves the scale", () => {
  const placing = new Placing();
  placing.frame({ world: body(0, 0, 0.5), picture: body(0.75, 0.5, 0.25) }, 400, 400);
  const frame = placing.frame({ world: body(0, 0, 0.5), picture: body(0.75, 0.5, 0.125) }, 400, 400);
  expect(frame[23]![0]).toBeCloseTo(0.55);
  expect(placing.frame({ world: body(0, 0, 0.5), picture: body(0.75, 0.5, 0) }, 400, 400)[23]![0]).toBeCloseTo(0.55);
});

test("a landmark that is not seen is null, and the model's joints are the means of what is", () => {
  const placing = new Placing();
  const world = body(0.25, 0, 0.5).map((one, i) => ({ ...one, visibility: i === 15 ? 0.4 : 0.6 }));
  const frame = placing.frame({ world, picture: body(0.5, 0.5, 0.25) }, 400, 400);
  expect(frame[15]).toBeNull();
  expect(shownOf(frame, [[0, 15], [11], [15]])).toEqual([[-0.25, 0, 0.1], [-0.25, 0.5, 0.1], null]);
});

test("MediaPipe is told milliseconds, for it makes microseconds of them", async () => {
  const send = vi.fn(() => Promise.resolve());
  const pose = Pose.with({ send, onResults: () => undefined } as unknown as Solution);
  const video = {} as HTMLVideoElement;
  expect(await pose.look(video, 1.5)).toBeNull();
  expect(send).toHaveBeenCalledWith({ image: video }, 1500);
});

test("a browser that does not tell when pictures come is told so, before a camera is asked for", async () => {
  const opened = Capture.open({} as HTMLVideoElement);
  await expect(opened).rejects.toThrow(CameraProblem);
  await expect(opened).rejects.toThrow("does not tell when a camera's pictures come");
});

test("a hidden tab, which gets no pictures, keeps none waiting", async () => {
  vi.useFakeTimers();
  const waiting = new Map<number, (now: number) => void>();
  let asked = 0;
  const video = {
    requestVideoFrameCallback: (come: (now: number) => void) => {
      waiting.set(++asked, come);
      return asked;
    },
    cancelVideoFrameCallback: (one: number) => void waiting.delete(one),
  } as Parameters<typeof picture>[0];
  for (let second = 0; second < 3; second++) {
    const come = picture(video);
    await vi.advanceTimersByTimeAsync(1000);
    await come;
  }
  expect([asked, waiting.size]).toEqual([3, 0]);
  const come = picture(video);
  waiting.get(4)!(40);
  expect([await come, vi.getTimerCount()]).toEqual([40, 0]);
});

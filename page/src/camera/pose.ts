/** MediaPipe's pose in the browser, a part of `make page-full`: loaded when it is asked for, from this service alone. */
import { part } from "../local/runtime.ts";
import { address } from "../service.ts";
import type { Found, Landmark } from "./landmarks.ts";
import { CameraProblem } from "./opening.ts";

interface Results {
  poseLandmarks?: Landmark[];
  poseWorldLandmarks?: Landmark[];
}

export interface Solution {
  setOptions: (options: { modelComplexity: 0; smoothLandmarks: boolean }) => void;
  onResults: (listener: (results: Results) => void) => void;
  initialize: () => Promise<void>;
  send: (inputs: { image: HTMLVideoElement }, milliseconds: number) => Promise<void>;
  close: () => Promise<void>;
}

type Global = typeof globalThis & { Pose?: new (config: { locateFile: (file: string) => string }) => Solution };

export class Pose {
  private found: Found | null = null;

  private constructor(private readonly solution: Solution) {
    solution.onResults(({ poseWorldLandmarks: world, poseLandmarks: picture }) => {
      this.found = world && picture ? { world, picture } : null;
    });
  }

  /** Load it. Throws CameraProblem where its files are not there, or the browser draws no WebGL, which it computes by. */
  static async load(): Promise<Pose> {
    const where = await part("camera");
    if (where === null) throw new CameraProblem("This page was built without the camera: make page-full adds it.");
    if (document.createElement("canvas").getContext("webgl2") === null) {
      throw new CameraProblem("This browser has no WebGL 2, by which the body is found in a picture.");
    }
    const folder = address(where).href;
    await script(`${folder}pose.js`);
    const made = (globalThis as Global).Pose;
    if (made === undefined) throw new CameraProblem(UNLOADED);
    const solution = new made({ locateFile: (file) => `${folder}${file}` });
    solution.setOptions({ modelComplexity: 0, smoothLandmarks: true }); // the lite model alone is served
    try {
      await solution.initialize();
    } catch {
      throw new CameraProblem(UNLOADED);
    }
    return Pose.with(solution);
  }

  static with(solution: Solution): Pose {
    return new Pose(solution);
  }

  /** Return what is in the picture that a video shows, null where nobody is found; its seconds rise from call to call. */
  async look(video: HTMLVideoElement, seconds: number): Promise<Found | null> {
    this.found = null;
    await this.solution.send({ image: video }, 1000 * seconds);
    return this.found;
  }

  close(): void {
    void this.solution.close();
  }
}

const UNLOADED = "The camera's files could not be loaded from this service.";

/** Run a script of this service, once. */
function script(url: string): Promise<void> {
  if (document.querySelector(`script[src="${url}"]`) !== null) return Promise.resolve();
  const element = document.createElement("script");
  element.src = url;
  return new Promise((loaded, failed) => {
    element.onload = () => loaded();
    element.onerror = () => {
      element.remove();
      failed(new CameraProblem(UNLOADED));
    };
    document.head.append(element);
  });
}

/** A camera as a source of frames: each picture is looked at here, and what leaves the page is the places of joints. */
import type { Run } from "../action/run.ts";
import { Placing, SENT_AS, shownOf } from "./landmarks.ts";
import { needPictures, openCamera } from "./opening.ts";
import { Pose } from "./pose.ts";

const RECENT = 10; // pictures that the pace is told of

let loaded: Promise<Pose> | null = null;

/** Load MediaPipe once; what failed is tried again. */
function pose(): Promise<Pose> {
  loaded ??= Pose.load().catch((error: unknown) => {
    loaded = null;
    throw error;
  });
  return loaded;
}

export class Capture {
  /** pictures looked at, and those with a body in them */
  looked = 0;
  found = 0;
  private readonly moments: number[] = [];
  private ended = false;

  private constructor(
    private readonly stream: MediaStream,
    private readonly pose: Pose,
  ) {}

  /** Open the camera for a video to show it, load MediaPipe. Throws CameraProblem. */
  static async open(video: HTMLVideoElement): Promise<Capture> {
    needPictures(video);
    const stream = await openCamera();
    try {
      return new Capture(stream, await pose());
    } catch (error) {
      stop(stream);
      throw error;
    }
  }

  /** Pictures a second that are looked at, over the last ones. */
  get pace(): number | null {
    const [first, last] = [this.moments[0], this.moments.at(-1)];
    return first === undefined || last === undefined || last === first ? null : (this.moments.length - 1) / (last - first);
  }

  /** Feed a run with what the camera sees, until it is closed or the run turns to something else. */
  async follow(run: Run, video: HTMLVideoElement, table: readonly (readonly number[])[], told: () => void): Promise<void> {
    video.srcObject = this.stream;
    const placing = new Placing();
    try {
      await video.play();
      await this.pose.look(video, (await picture(video)) / 1000); // the first takes seconds, in which nobody's motion is seen
      run.follow("the camera", SENT_AS);
      while (!this.over(run)) {
        const seconds = (await picture(video)) / 1000;
        if (this.over(run) || seconds <= (this.moments.at(-1) ?? 0)) continue;
        const found = await this.pose.look(video, seconds);
        this.looked++;
        this.moments.push(seconds);
        if (this.moments.length > RECENT) this.moments.shift();
        if (found !== null && !this.over(run)) {
          this.found++;
          const sent = placing.frame(found, video.videoWidth, video.videoHeight);
          run.see({ sent, shown: shownOf(sent, table), seconds });
        }
        told();
      }
    } finally {
      this.close();
      video.srcObject = null;
      run.leave();
    }
  }

  private over(run: Run): boolean {
    return this.ended || !run.following;
  }

  close(): void {
    this.ended = true;
    stop(this.stream);
  }
}

function stop(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}

type Pictures = Pick<HTMLVideoElement, "requestVideoFrameCallback" | "cancelVideoFrameCallback">;

/** Wait for a picture, a second at most; return its moment in milliseconds. */
export function picture(video: Pictures): Promise<number> {
  return new Promise((come) => {
    const asked = video.requestVideoFrameCallback((now) => {
      clearTimeout(late);
      come(now);
    });
    const late = setTimeout(() => {
      video.cancelVideoFrameCallback(asked); // a hidden tab gets none: it would keep one a second
      come(performance.now());
    }, 1000);
  });
}

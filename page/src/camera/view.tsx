/** The camera as a source of motions: asked for, told what it costs, and stopped. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Run } from "../action/run.ts";
import { Failure } from "../failure.tsx";
import { useRedraw } from "../observable.ts";
import type { Version } from "../service.ts";
import { Capture } from "./capture.ts";
import { SENT_AS } from "./landmarks.ts";
import { CameraProblem } from "./opening.ts";
import "./camera.css";

export function CameraSource({ run, version }: { run: Run; version: Version }) {
  const redraw = useRedraw();
  const video = useRef<HTMLVideoElement>(null);
  const [capture, put] = useState<Capture | null>(null);
  const [opening, open] = useState(false);
  const [error, fail] = useState<unknown>(null);
  const gone = useRef(false);
  useEffect(() => () => void (gone.current = true), []);
  useEffect(() => () => capture?.close(), [capture]);
  const begin = async () => {
    fail(null);
    open(true);
    let made: Capture | null = null;
    try {
      const table = version.layouts?.[SENT_AS.layout]?.table;
      if (!table) throw new CameraProblem("This model's joints cannot be told from what a camera sees.");
      made = await Capture.open(video.current!);
      if (gone.current) return;
      put(made);
      open(false);
      await made.follow(run, video.current!, table, redraw);
    } catch (problem) {
      if (!gone.current) fail(problem);
    } finally {
      made?.close();
      if (!gone.current) {
        open(false);
        put(null);
      }
    }
  };
  return (
    <div class="camera">
      <div class="row">
        {capture === null ? (
          <button disabled={opening} onClick={() => void begin()}>
            Use the camera
          </button>
        ) : (
          <button class="main" onClick={() => capture.close()}>
            Stop the camera
          </button>
        )}
        <p class="note" role="status">
          {opening ? "Asking for the camera, and loading what finds a body in a picture (12 MB, from this service)…" : capture === null ? "" : told(capture)}
        </p>
      </div>
      {error !== null && <Failure error={error} close={() => fail(null)} />}
      <video ref={video} class={capture === null ? "seen off" : "seen"} muted playsInline aria-label="What the camera sees, as in a mirror" />
      <p class="note">
        Pictures stay in this browser; the places of joints go to the service. A camera needs localhost or HTTPS. It sees no depth: MediaPipe estimates it, and a model that learned from depth pays for
        that. Of 430 recorded motions of people it never saw, action 2 names 97 % rightly with their depth, 90 % with half of it, 85 % with depth off by 10 cm, and calls every one “other” without any
        (docs/page.md).
      </p>
    </div>
  );
}

function told({ looked, found, pace }: Capture): string {
  if (looked === 0) return "Getting ready: the first picture takes longest…";
  const rate = pace === null ? "" : `, ${pace.toFixed(pace < 10 ? 1 : 0)} a second`;
  return found === 0 ? `${looked} pictures${rate}: nobody was found yet. Stand so that the whole body is in the picture.` : `${looked} pictures${rate}; a body in ${found} of them.`;
}

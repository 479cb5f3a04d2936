/** Demo motions: those drawn by hand, and those that are means of recordings. */
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Version } from "../service.ts";
import { HZ, MOTIONS, frames as drawn } from "./motions.ts";
import type { Clip } from "./run.ts";

const LAYOUT = "utd20"; // that of all demo motions

/** hdm05.json: of each motion the mean of some clips, as millimetres from frame to frame. */
export interface Means {
  source: string;
  licence: string;
  hz: number;
  motions: { name: string; clips: number; frames: number[][] }[];
}

export interface Demo extends Clip {
  /** the label that it shows */
  motion: string;
}

export interface Demos {
  drawn: Demo[];
  means: Demo[];
}

/** Return the drawn motions that a model can be shown: those of its labels, where it reads their joints. */
export function demosFor(version: Version): Demo[] {
  return suited(
    version,
    MOTIONS.map((motion) => ({ name: motion.name, motion: motion.name, hz: HZ, frames: drawn(motion) })),
  );
}

/** The same of the means. */
export function meansFor(version: Version, { hz, motions }: Means): Demo[] {
  return suited(
    version,
    motions.map(({ name, clips, frames }) => ({ name: `${name}, mean of ${clips}`, motion: name, hz, frames: unpacked(frames) })),
  );
}

/** Return frames in metres. */
export function unpacked(differences: readonly (readonly number[])[]): number[][][] {
  const at = (differences[0] ?? []).map(() => 0);
  return differences.map((row) => {
    row.forEach((by, i) => (at[i]! += by));
    return Array.from({ length: at.length / 3 }, (_, joint) => at.slice(3 * joint, 3 * joint + 3).map((mm) => mm / 1000));
  });
}

interface Motion extends Demo {
  frames: number[][][];
}

function suited(version: Version, demos: Motion[]): Demo[] {
  const known = new Set(version.labels ?? []);
  const own = version.layouts?.[version.layout ?? ""];
  const from = version.layouts?.[LAYOUT];
  if (!own || !from || version.dims === 2) return [];
  const table: number[][] | undefined = version.layout === LAYOUT ? own.joint_names.map((_, i) => [i]) : from.table;
  if (!table) return [];
  return demos
    .filter(({ motion }) => known.has(motion))
    .map((demo) => ({ ...demo, frames: demo.frames.map((frame) => table.map((joints) => middle(joints.map((j) => frame[j]!)))) }));
}

function middle(places: number[][]): number[] | null {
  if (places.length === 0) return null;
  return [0, 1, 2].map((axis) => places.reduce((sum, p) => sum + p[axis]!, 0) / places.length);
}

let fetched: Promise<Means | null> | null = null;

/** Fetch the means once; null where the page was built without them. */
function means(): Promise<Means | null> {
  fetched ??= fetch(new URL("hdm05.json", document.baseURI)).then(
    (answer) => (answer.ok ? (answer.json() as Promise<Means>) : null),
    () => null,
  );
  return fetched;
}

export function useDemos(version: Version): Demos {
  const [file, put] = useState<Means | null>(null);
  useEffect(() => void means().then(put), []);
  return {
    drawn: useMemo(() => demosFor(version), [version]),
    means: useMemo(() => (file === null ? [] : meansFor(version, file)), [version, file]),
  };
}

interface ChipsProps {
  demos: Demos;
  /** the name of the clip that is shown */
  shown: string | null;
  /** play one, and behind it others */
  play: (demo: Demo, then: Demo[]) => void;
  all?: boolean;
}

/** Buttons for every demo motion. */
export function DemoChips({ demos, shown, play, all = false }: ChipsProps) {
  const every = [...demos.drawn, ...demos.means];
  if (every.length === 0) return null;
  const chips = (some: Demo[]) =>
    some.map((demo) => (
      <button key={demo.name} class="chip" aria-pressed={demo.name === shown} onClick={() => play(demo, [])}>
        {demo.motion}
      </button>
    ));
  return (
    <>
      <div class="row" role="group" aria-label="Demo motions">
        {all && (
          <button class="main" onClick={() => play(every[0]!, every.slice(1))}>
            Play all
          </button>
        )}
        {chips(demos.drawn)}
      </div>
      {demos.means.length > 0 && (
        <div class="row" role="group" aria-label="Means of recordings">
          <span class="quiet">means of recordings:</span>
          {chips(demos.means)}
        </div>
      )}
    </>
  );
}

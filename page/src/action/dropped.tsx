/** How a dropped file is to be read: asked, and shown, never guessed silently. */
import { useState } from "preact/hooks";
import type { Version } from "../service.ts";
import { AXES, candidates, convert, tableOf, type Axes, type Recording, type Unit } from "./recording.ts";
import type { Clip } from "./run.ts";

interface FileReadingProps {
  name: string;
  recording: Recording;
  version: Version;
  use: (clips: Clip[]) => void;
  close: () => void;
}

const BY_NAME = "the file's own names";
const MOST = 60; // clips of one file that get a button

export function FileReading({ name, recording, version, use, close }: FileReadingProps) {
  const layouts = version.layouts ?? {};
  const own = layouts[version.layout ?? ""]!;
  const found = candidates(recording, layouts);
  const choices = [...(recording.names ? [BY_NAME] : []), ...found];
  const [layout, choose] = useState(choices[0] ?? "");
  const [table, edit] = useState(() => tableFor(choices[0] ?? ""));
  const [unit, measure] = useState<Unit | "">("");
  const [axes, turn] = useState<Axes | "">("");
  const [hz, rate] = useState(recording.hz ?? 30);
  const joints = recording.clips[0]!.frames[0]!.length;
  const frames = recording.clips.reduce((sum, clip) => sum + clip.frames.length, 0);

  function tableFor(wanted: string): number[][] {
    return tableOf(recording, layouts[wanted] ?? null, own);
  }
  const theirs = recording.names ?? layouts[layout]?.joint_names ?? Array.from({ length: joints }, (_, i) => `joint ${i}`);
  const lost = own.joint_names.filter((_, j) => table[j]!.length === 0);
  const ready = unit !== "" && axes !== "" && hz > 0 && lost.length < own.joint_names.length;
  const go = () => {
    if (unit === "" || axes === "") return;
    use(
      recording.clips.slice(0, MOST).map((clip) => ({
        name: recording.clips.length === 1 ? name : clip.name,
        hz,
        frames: convert(clip.frames, { table, unit, axes }),
      })),
    );
  };
  return (
    <form
      class="card reading"
      aria-label="How the file is to be read"
      onSubmit={(event) => {
        event.preventDefault();
        go();
      }}
    >
      <h3>{name}</h3>
      <p class="note">
        {recording.format}: {recording.clips.length === 1 ? "one clip" : `${recording.clips.length} clips`}, {frames} frames of {joints} joints
        {recording.clips.length > MOST && `; the first ${MOST} are offered`}. How is it to be read?
      </p>
      <div class="row">
        <label class="field">
          joints
          <select
            value={layout}
            onChange={(event) => {
              choose(event.currentTarget.value);
              edit(tableFor(event.currentTarget.value));
            }}
          >
            {choices.length === 0 && <option value="">in no order that is known</option>}
            {choices.map((choice) => (
              <option key={choice}>{choice}</option>
            ))}
          </select>
        </label>
        <label class="field">
          unit
          <select value={unit} onChange={(event) => measure(event.currentTarget.value as Unit | "")}>
            <option value="">choose…</option>
            <option value="m">metres</option>
            <option value="cm">centimetres</option>
            <option value="mm">millimetres</option>
            <option value="px">pixels</option>
          </select>
        </label>
        <label class="field">
          axes
          <select value={axes} onChange={(event) => turn(event.currentTarget.value as Axes | "")}>
            <option value="">choose…</option>
            {Object.keys(AXES).map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label class="field">
          frames a second
          <input type="number" min="1" max="240" step="any" value={hz} onInput={(event) => rate(event.currentTarget.valueAsNumber || 0)} />
        </label>
        <button class="main" disabled={!ready}>
          Show it
        </button>
        <button type="button" onClick={close}>
          Leave it
        </button>
      </div>
      {unit === "" && <p class="note">The unit and the axes are not in the file: choose them. {hint(recording)}</p>}
      {unit === "px" && (
        <p class="note">
          Places in a picture have no depth. They are scaled so that hips and shoulders are 42 cm apart; a model that learned from depth will mostly say <b>other</b>.
        </p>
      )}
      {lost.length > 0 && <p class="note">Not in the file, and held where they are not seen: {lost.join(", ")}.</p>}
      <details>
        <summary>Which joint becomes which</summary>
        <div class="mapping">
          {own.joint_names.map((joint, j) => {
            const value = table[j]!.length === 1 ? String(table[j]![0]) : table[j]!.length === 0 ? "none" : "mean";
            return (
              <label class="field" key={joint}>
                {joint}
                <select
                  value={value}
                  onChange={(event) => {
                    const chosen = event.currentTarget.value;
                    edit(table.map((old, i) => (i !== j ? old : chosen === "none" ? [] : chosen === "mean" ? tableFor(layout)[j]! : [Number(chosen)])));
                  }}
                >
                  <option value="none">not there</option>
                  {tableFor(layout)[j]!.length > 1 && <option value="mean">mean of {[...new Set(tableFor(layout)[j])].map((i) => theirs[i]).join(", ")}</option>}
                  {theirs.map((their, i) => (
                    <option key={i} value={i}>
                      {their}
                    </option>
                  ))}
                </select>
              </label>
            );
          })}
        </div>
      </details>
    </form>
  );
}

/** Tell how large the body is in the file's numbers, so that somebody can say the unit. */
function hint(recording: Recording): string {
  const frame = recording.clips[0]!.frames[0]!.filter((joint) => joint !== null);
  const span = Math.max(...[0, 1, 2].map((axis) => {
    const values = frame.map((joint) => joint[axis] ?? 0);
    return Math.max(...values) - Math.min(...values);
  }));
  return Number.isFinite(span) ? `In the first frame the body spans ${Number(span.toPrecision(3))} of the file's units.` : "";
}

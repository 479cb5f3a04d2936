/** Action: a skeleton moves, and what the network makes of it, frame by frame. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ModelChoice } from "../choice.tsx";
import { desk, modelsOf, newest } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { useObservable, useRedraw } from "../observable.ts";
import { DASHES, colours, series } from "../paint.ts";
import { Plot } from "../plot.tsx";
import { Swatch } from "../swatch.tsx";
import { model as describe, type Model, type Version } from "../service.ts";
import { CameraSource } from "../camera/view.tsx";
import { bones } from "./bones.ts";
import { FileReading } from "./dropped.tsx";
import { DemoChips, useDemos, type Demo } from "./demos.tsx";
import { HZ } from "./motions.ts";
import { readFile, ACCEPTED } from "./readers/file.ts";
import type { Recording } from "./recording.ts";
import { RunHere } from "../local/switch.tsx";
import { Run, type Clip } from "./run.ts";
import { Stage } from "./stage.tsx";
import { OTHER } from "./sureness.ts";
import { Explaining } from "../why/explanation.ts";
import { Why, marksAt, type Reason } from "./why.tsx";
import "./action.css";

const WINDOW = 8; // seconds that the lines show
const SLOTS = 6; // lines at once

export function Action() {
  const served = useObservable(desk.models);
  const models = useMemo(() => modelsOf("skeleton"), [served]);
  const [run, put] = useState<Run | null>(null);
  const handed = useObservable(desk.handed);
  useEffect(() => {
    if (run === null && models[0]) put(new Run(models[0]));
  }, [models]);
  useEffect(() => {
    const model = models.find((m) => m.name === handed?.model);
    if (handed === null || model === undefined) return;
    run?.close();
    put(new Run(model, handed));
    desk.handed.set(null);
  }, [handed]);
  if (models.length === 0) return <p class="note">This service has no model of skeletons.</p>;
  const choose = (model: Model) => {
    run?.close();
    put(new Run(model));
  };
  return (
    <section class="view" aria-labelledby="action-title">
      <div class="lead">
        <h2 id="action-title">Action</h2>
        <p>A body moves, and after every frame the network says which motion it sees. It reads the places of the joints, nothing else.</p>
        {models.length > 1 && <ModelChoice models={models} current={run?.model} choose={choose} />}
      </div>
      {run !== null && <Playing key={run} run={run} />}
    </section>
  );
}

function Playing({ run }: { run: Run }) {
  const redraw = useRedraw();
  useEffect(() => run.changed.follow(redraw), [run]);
  const [anew, renew] = useState(false);
  const [error, fail] = useState<unknown>(null);
  const [file, open] = useState<{ name: string; recording: Recording } | null>(null);
  const [more, add] = useState<Clip[]>([]);
  useEffect(() => {
    describe(run.model.name).then((m) => run.learn(m), fail);
  }, [run]);

  const full = run.version;
  const into = run.versionFor(HZ, anew);
  const demos = useDemos(into);
  const wave = useRef<Clip | null>(null);
  const queue = useRef<Clip[]>([]);
  const theatre = useRef<HTMLDivElement>(null);
  run.onEnd = () => {
    const next = queue.current.shift();
    if (next) run.play(next, anew);
  };
  const play = (clip: Clip, then: Clip[] = []) => {
    queue.current = then;
    theatre.current?.scrollIntoView({ block: "nearest" }); // on a phone the motions' names stand below it
    run.play(clip, anew);
  };
  const playWave = async () => {
    fail(null);
    try {
      wave.current ??= await exampleWave();
      play(wave.current);
    } catch (problem) {
      fail(problem);
    }
  };
  const take = async (dropped: File) => {
    fail(null);
    try {
      open({ name: dropped.name, recording: await readFile(dropped) });
    } catch (problem) {
      open(null);
      fail(problem);
    }
  };

  const at = run.shown;
  const body = at >= 0 ? run.frames[at]! : (demos.drawn[0]?.frames[0] ?? null);
  const seen = at >= 0 ? full : into;
  const names = seen.layouts?.[seen.layout ?? ""]?.joint_names ?? [];
  const lines = useMemo(() => bones(names, body ?? []), [names, body === null]);
  const clip = run.clipAt(Math.max(0, at));
  const why = useMemo(() => new Explaining<Reason>(), [run]);
  useEffect(() => why.changed.follow(redraw), [why]);
  useEffect(() => () => why.leave(), [why]);
  if (why.found !== null && run.frames.length < why.found.to) why.leave(); // everything was forgotten
  const marks = marksAt(why.found, at);
  return (
    <>
      <div class="motion">
        <div class="card" ref={theatre}>
          <Stage body={body} bones={lines} marks={marks} label={at < 0 ? "A standing body" : `A moving body, ${clip?.name ?? ""}, frame ${at + 1}`} />
          <p class="note sides">
            {marks === null ? (
              <>
                <span class="left">▬ left</span> <span class="right">▬ right</span>
              </>
            ) : (
              <span>full: for {why.found!.label}, a ring: against it</span>
            )}{" "}
            <span>drag to turn</span>
            {clip && <span class="now">shown: {clip.name}</span>}
          </p>
        </div>
        <div class="card">
          <Told run={run} version={full} first={demos.drawn[0]} play={play} />
          <Scores run={run} labels={full.labels ?? []} below={full.other_below} />
        </div>
      </div>
      <Why run={run} version={full} why={why} names={names} />
      <div class="card">
        <Controls run={run} />
        {run.error !== null && <Failure error={run.error} close={() => run.begin()} />}
        {error !== null && <Failure error={error} close={() => fail(null)} />}
        <DemoChips demos={demos} shown={at >= 0 && clip ? clip.name : null} play={play} all />
        {more.length > 0 && (
          <div class="row" role="group" aria-label="Motions of your file">
            {more.map((one) => (
              <button key={one} class="chip" aria-pressed={clip?.name === one.name && at >= 0} onClick={() => play(one)}>
                {one.name}
              </button>
            ))}
          </div>
        )}
        <div class="row">
          <button onClick={() => void playWave()}>The wave of examples/</button>
          <label class="field">
            <input type="checkbox" checked={anew} onChange={(event) => renew(event.currentTarget.checked)} />
            <span>each motion from the start of a sequence</span>
          </label>
          <Drop take={(dropped) => void take(dropped)} />
        </div>
        <RunHere
          left={run.local?.left ?? null}
          moving={run.moving}
          disabled={run.moving || !run.movable}
          toggle={() => void (run.local === null ? run.goHere() : run.goBack())}
        />
        {run.refusal !== null && <Failure error={run.refusal} close={() => run.clearRefusal()} />}
        <CameraSource run={run} version={newest(run.model)} />
        {file !== null && (
          <FileReading
            key={file.recording}
            name={file.name}
            recording={file.recording}
            version={into}
            close={() => open(null)}
            use={(clips) => {
              open(null);
              add(clips);
              if (clips[0]) play(clips[0]);
            }}
          />
        )}
        <p class="note">
          The dashed line: below it the answer is “other”. Most demo motions were drawn by hand for this page. The others are means of recordings, of three people each: HDM05 (Müller et al. 2007),{" "}
          <a href="hdm05.txt">CC BY-SA 3.0</a>. Without the tick, one motion follows another in the same session, and you can watch the state recover from what came before.
        </p>
      </div>
    </>
  );
}

async function exampleWave(): Promise<Clip> {
  const answer = await fetch(new URL("wave.json", document.baseURI));
  if (!answer.ok) throw new Error(`The wave is not there: ${answer.status}.`);
  const { sequences } = (await answer.json()) as { sequences: number[][][][] };
  return { name: "the wave of examples/", frames: sequences[0]!, hz: HZ };
}

function Drop({ take }: { take: (file: File) => void }) {
  const [over, hover] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        hover(true);
      }}
      onDragLeave={() => hover(false)}
      onDrop={(event) => {
        event.preventDefault();
        hover(false);
        const file = event.dataTransfer?.files[0];
        if (file) take(file);
      }}
    >
      <button onClick={() => field.current!.click()}>Your own file…</button>
      <span>or drop it here: .npz, .npy, .json, .csv, NTU .skeleton</span>
      <input
        ref={field}
        type="file"
        hidden
        accept={ACCEPTED}
        aria-label="A file with a motion"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) take(file);
        }}
      />
    </div>
  );
}

/** The answer, large, and since when it is sure. */
function Told({ run, version, first, play }: { run: Run; version: Version; first: Demo | undefined; play: (demo: Demo) => void }) {
  const at = run.shown;
  const answer = run.answers[at];
  if (answer === undefined) {
    return (
      <div class="told">
        <p class="answer quiet">Choose a motion below</p>
        {first !== undefined && (
          <button class="main" onClick={() => play(first)}>
            or see a {first.motion} at once
          </button>
        )}
        <p class="note">
          {run.handed === null
            ? `It knows ${version.labels?.length ?? 0} motions.`
            : `Session ${run.handed.session_id.slice(0, 8)}… of ${run.handed.model} ${run.handed.version} is open: ${run.handed.position} frames were read in ${run.handed.step} ${run.handed.step === 1 ? "step" : "steps"}. The frames themselves are not kept; the next motion goes on from its state.`}
        </p>
      </div>
    );
  }
  const clip = run.clipAt(at)!;
  const sure = run.sureAt(at);
  const percent = `${(100 * answer.score).toFixed(0)} %`;
  const asked = version.other_below === null ? "" : `; it says a motion's name from ${Math.round(100 * version.other_below)} % on`;
  return (
    <div class="told">
      <p class="answer" aria-live="polite">
        {answer.label}
      </p>
      {answer.label === OTHER ? (
        <p class="note">
          {run.warnings.length > 0 ? run.warnings.join(" ") : `not sure of any motion it knows: nearest is ${answer.best}, ${percent}${asked}`}
        </p>
      ) : (
        <p class="note">
          {percent}
          {sure !== null
            ? `, sure since ${((sure - clip.from) / run.hz).toFixed(2)} s after this motion's start`
            : ", as before this motion began: still the answer to the motion before, or the same again"}
        </p>
      )}
    </div>
  );
}

/** The scores of the classes as lines; each class keeps its colour. */
function Scores({ run, labels, below }: { run: Run; labels: readonly string[]; below: number | null }) {
  const colour = useRef(new Map<number, number>());
  const end = Math.max(WINDOW * run.hz, run.shown + 1);
  const from = Math.max(0, end - WINDOW * run.hz);
  const rows = run.scores.slice(from, run.shown + 1);
  const high = labels.map((_, k) => rows.reduce((most, row) => Math.max(most, row[k]!), 0));
  const last = rows.at(-1);
  const slots = labels
    .map((_, k) => k)
    .filter((k) => high[k]! > 0.12)
    .sort((a, b) => high[b]! - high[a]! || (last?.[b] ?? 0) - (last?.[a] ?? 0))
    .slice(0, SLOTS);
  for (const k of slots) {
    if (colour.current.has(k)) continue;
    const taken = new Set(slots.map((s) => colour.current.get(s)));
    const free = Array.from({ length: 7 }, (_, i) => i).find((i) => !taken.has(i));
    colour.current.set(k, free ?? k % 7);
  }
  const x = rows.map((_, i) => (from + i) / run.hz);
  const lines = Array.from({ length: SLOTS }, (_, i) => {
    const k = slots[i];
    const c = k === undefined ? 0 : colour.current.get(k)!;
    return { label: k === undefined ? "" : labels[k]!, stroke: () => series(c), width: () => 2.5, dash: () => DASHES[c]! };
  });
  const data = [x, ...lines.map((_, i) => rows.map((row) => (slots[i] === undefined ? null : row[slots[i]]!)))] as [number[], ...(number | null)[][]];
  const sure = run.shown >= 0 ? run.sureAt(run.shown) : null;
  return (
    <div>
      <Plot
        data={data}
        lines={lines}
        height={240}
        label={`Scores of the classes over the last ${WINDOW} seconds. ${slots.map((k) => `${labels[k]}: ${((last?.[k] ?? 0) * 100).toFixed(0)} %`).join(", ")}`}
        range={() => [0, 1.02]}
        span={() => [from / run.hz, end / run.hz]}
        ticks={(v) => `${Math.round(100 * v)} %`}
        over={(plot, paint) => {
          const c = colours("quiet", "card", "good");
          const ratio = window.devicePixelRatio || 1;
          const { left, top, width, height } = plot.bbox;
          const line = (frame: number, stroke: string, text: string, low: boolean, dash: number[]) => {
            const at = plot.valToPos(frame / run.hz, "x", true);
            if (at < left || at > left + width) return;
            paint.save();
            paint.setLineDash(dash.map((d) => d * ratio));
            paint.strokeStyle = paint.fillStyle = stroke;
            paint.lineWidth = ratio;
            paint.beginPath();
            paint.moveTo(at, top);
            paint.lineTo(at, top + height);
            paint.stroke();
            paint.font = `${12 * ratio}px system-ui, sans-serif`;
            paint.textAlign = "left";
            paint.textBaseline = "alphabetic";
            const wide = paint.measureText(text).width;
            const x = left + width - at < wide + 8 * ratio ? at - wide - 4 * ratio : at + 4 * ratio;
            const y = low ? top + height / 2 : top + 18 * ratio;
            paint.fillStyle = c["card"]!;
            paint.fillRect(x - 2 * ratio, y - 12 * ratio, wide + 4 * ratio, 16 * ratio);
            paint.fillStyle = stroke;
            paint.fillText(text, x, y);
            paint.restore();
          };
          for (const one of run.clips) if (one.from > 0) line(one.from, c["quiet"]!, one.name, true, [2, 3]);
          if (sure !== null) line(sure, c["good"]!, "sure", false, []);
          if (below !== null) {
            const y = plot.valToPos(below, "y", true);
            paint.save();
            paint.setLineDash([3 * ratio, 4 * ratio]);
            paint.strokeStyle = c["quiet"]!;
            paint.lineWidth = ratio;
            paint.beginPath();
            paint.moveTo(left, y);
            paint.lineTo(left + width, y);
            paint.stroke();
            paint.restore();
          }
        }}
      />
      <ul class="key">
        {slots.map((k, i) => (
          <li key={k}>
            <Swatch line={lines[i]!.stroke()} dash={lines[i]!.dash()} /> {labels[k]}{" "}
            <span class="quiet">{((last?.[k] ?? 0) * 100).toFixed(0)} %</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Controls({ run }: { run: Run }) {
  const shown = Math.max(0, run.shown);
  return (
    <div class="row controls">
      {run.playing ? (
        <button class="main" onClick={() => run.pause()}>
          Pause
        </button>
      ) : (
        <button class="main" disabled={run.frames.length === 0 && !run.running} onClick={() => run.resume()}>
          Play
        </button>
      )}
      <label class="field scrub">
        <span>{(shown / run.hz).toFixed(1)} s</span>
        <input
          type="range"
          min="0"
          max={Math.max(1, run.answers.length - 1)}
          value={shown}
          aria-label="Frame that is shown"
          disabled={run.answers.length === 0}
          onInput={(event) => {
            run.pause();
            run.seek(event.currentTarget.valueAsNumber);
          }}
        />
      </label>
      <label class="field">
        speed
        <select value={String(run.speed)} onChange={(event) => (run.speed = Number(event.currentTarget.value))}>
          {["0.25", "0.5", "1", "2", "4"].map((s) => (
            <option key={s} value={s}>
              {s} ×
            </option>
          ))}
        </select>
      </label>
      <button onClick={() => run.begin()} disabled={run.frames.length === 0}>
        Forget everything
      </button>
    </div>
  );
}

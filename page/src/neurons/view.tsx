/** Neurons: the hidden state as it streams. Neurons of a layer are independent of each other, so each can be read alone. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { bones } from "../action/bones.ts";
import { Stage } from "../action/stage.tsx";
import { DemoChips, useDemos } from "../action/demos.tsx";
import { Paper, bySurprise } from "../characters/paper.tsx";
import { visible } from "../characters/surprise.ts";
import { Generating, Legend, Typing } from "../characters/view.tsx";
import type { Sign } from "../characters/writing.ts";
import { ModelChoice } from "../choice.tsx";
import { desk, newest, streams } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { useObservable, useRedraw } from "../observable.ts";
import { fork as copyOf, model as describe, type Model, type SessionInfo, type Version } from "../service.ts";
import { Compare, CompareMotions } from "./compare.tsx";
import { Detail } from "./detail.tsx";
import { NeuronMap } from "./map.tsx";
import { Others, called } from "./others.tsx";
import { PASSAGE } from "./passage.ts";
import { ofMotion, ofText } from "./properties.ts";
import { following } from "./search.ts";
import { Searching } from "./searching.tsx";
import { WatchedMotion, WatchedText, difference, type Comparable, type Watched } from "./source.ts";
import type { Trace } from "./trace.ts";
import "./neurons.css";

export function Neurons() {
  const served = useObservable(desk.models);
  const models = useMemo(
    () =>
      (served ?? [])
        .filter((m) => streams(m) && (m.modality === "text" || m.modality === "skeleton"))
        .sort((a, b) => b.modality.localeCompare(a.modality)),
    [served],
  );
  const [model, choose] = useState<Model | null>(null);
  const [known, know] = useState<{ model: Model; full: Version } | null>(null);
  const [error, fail] = useState<unknown>(null);
  const [turn, renew] = useState(0);
  const [begun, begin] = useState<Begun | null>(null);
  const current = model ?? models[0];
  useEffect(() => {
    if (current === undefined) return;
    let gone = false;
    fail(null);
    describe(current.name).then((m) => gone || know({ model: current, full: newest(m) }), fail);
    return () => {
      gone = true;
    };
  }, [current]);
  const full = known?.model === current ? known!.full : null; // never another model's
  if (current === undefined) return <p class="note">This service has no model of characters or skeletons.</p>;
  const again = (from: Begun | null) => {
    begin(from);
    renew((n) => n + 1);
  };
  const goOn = async (session: SessionInfo | null) => {
    fail(null);
    try {
      again(session === null ? null : { session, copy: await copyOf(session.session_id) });
    } catch (problem) {
      fail(problem);
    }
  };
  return (
    <section class="view" aria-labelledby="neurons-title">
      <div class="lead">
        <h2 id="neurons-title">Neurons</h2>
        <p>
          A neuron of an IndRNN keeps its own state and sees no other of its layer: h becomes f(what comes in + u · h). So each can be read alone, and its u says how long it
          remembers.
        </p>
      </div>
      <div class="row">
        <ModelChoice
          models={models}
          current={current}
          choose={(model) => {
            begin(null);
            choose(model);
          }}
        />
        {full !== null && (
          <Others model={current} version={full} label="Begin with" none="a new session" chosen={begun?.session ?? null} take={(session) => void goOn(session)} fail={fail} />
        )}
        <button onClick={() => again(null)}>Start again</button>
      </div>
      {begun !== null && (
        <p class="note">
          This goes on from a copy of session {called(begun.session)}, which had read {begun.session.position}. The states of then are not kept: the map begins with what comes now.
        </p>
      )}
      {error !== null && <Failure error={error} close={() => fail(null)} />}
      {full !== null &&
        (current.modality === "text" ? (
          <Text key={`${current.name} ${turn}`} model={current} full={full} from={begun?.copy ?? null} />
        ) : (
          <Motion key={`${current.name} ${turn}`} model={current} full={full} from={begun?.copy ?? null} />
        ))}
    </section>
  );
}

/** A session that is gone on with, and the copy of it that goes on. */
interface Begun {
  session: SessionInfo;
  copy: SessionInfo;
}

interface ReadingProps {
  model: Model;
  full: Version;
  from: SessionInfo | null;
}

/** What is held beside another from a step on; a fork of it where no session is named. */
interface Beside<W extends Watched> {
  watched: W;
  at: number;
  session: SessionInfo | null;
}

/** Holds a fork, or a copy of another session, beside what is watched. It is closed when another takes its place, and with the view. */
function useBeside<W extends Watched>(origin: W & Comparable<W>, close: (watched: W) => void) {
  const [twin, part] = useState<Beside<W> | null>(null);
  const [error, fail] = useState<unknown>(null);
  useEffect(() => () => twin && close(twin.watched), [twin]);
  const hold = async (session: SessionInfo | null) => {
    fail(null);
    try {
      const watched = await (session === null ? origin.fork() : origin.beside(session));
      part({ watched, at: watched.trace.length, session });
    } catch (problem) {
      fail(problem);
    }
  };
  return { twin, hold, leave: () => part(null), error, fail };
}

/** What is pointed at, held and pinned. */
function usePointing() {
  const [neuron, chooseNeuron] = useState<number | null>(null);
  const [step, chooseStep] = useState<number | null>(null);
  const [pins, setPins] = useState<readonly number[]>([]);
  const [marked, mark] = useState<readonly [number, number] | null>(null);
  return {
    neuron,
    step,
    pins,
    marked,
    mark,
    choose: (n: number | null, s: number | null) => {
      if (n !== null) chooseNeuron(n);
      chooseStep(s);
    },
    pin: (n: number) => setPins(pins.includes(n) ? pins.filter((p) => p !== n) : [...pins, n]),
    chooseStep,
  };
}

function Text({ model, full, from }: ReadingProps) {
  const [text] = useState(() => WatchedText.of(model, full, from));
  const { twin, hold, leave, error, fail } = useBeside<WatchedText>(text, (other) => other.writing.close(true));
  const [byNeuron, colourBy] = useState(true);
  const redraw = useRedraw();
  const { writing, trace } = text;
  useEffect(() => writing.changed.follow(redraw), [writing]);
  useEffect(() => () => writing.close(true), [writing]);
  const at = usePointing();
  const { neuron, step } = at;
  const chars = useMemo(() => writing.signs.map((sign) => sign.char), [writing.signs.length]);
  const properties = useMemo(() => ofText(chars), [chars]);
  const quotes = useMemo(() => properties.find((p) => p.name === "inside quotes" && p.values.some((v) => v !== p.values[0])), [properties]);
  const most = neuron === null ? 0 : trace.most[neuron]!;
  const colour = useMemo(() => (neuron === null || !byNeuron ? bySurprise : (_: Sign, i: number) => `s n${grade(trace, neuron, i)}`), [neuron, byNeuron, trace]);
  const context = (s: number) => {
    const around = (from: number, to: number) => chars.slice(Math.max(0, from), Math.max(0, to)).join("").replaceAll("\n", "↵");
    return `${around(s - 16, s)}[${around(s, s + 1)}]${around(s + 1, s + 8)}`;
  };
  return (
    <>
      <div class="card">
        {(neuron === null || !byNeuron) && writing.signs.length > 0 && <Legend />}
        {neuron === null && !writing.busy && quotes !== undefined && (
          <div class="row">
            <button class="main" onClick={() => at.choose(following(trace, quotes.values, 1)[0]?.neuron ?? null, null)}>
              Show a neuron that follows quotes
            </button>
            <span class="note">Every neuron is in the map below the text.</span>
          </div>
        )}
        {neuron !== null && byNeuron && <Strength name={trace.name(neuron)} />}
        {neuron !== null && (
          <div class="row" role="group" aria-label="Colour the text by">
            <span class="quiet">colour by</span>
            <button class="chip" aria-pressed={byNeuron} onClick={() => colourBy(true)}>
              {trace.name(neuron)}
            </button>
            <button class="chip" aria-pressed={!byNeuron} onClick={() => colourBy(false)}>
              surprise
            </button>
          </div>
        )}
        <Paper
          signs={writing.signs}
          before={writing.before}
          chosen={step}
          choose={at.chooseStep}
          label="What was read: arrow keys go from character to character, with shift they mark a stretch"
          empty="Nothing was read yet. Have it read the passage, or type."
          colour={colour}
          turn={byNeuron ? Math.round(8 * Math.log(most + 1e-6)) : writing.changed.value}
          mark={(from, to) => at.mark([from, to])}
          marked={at.marked}
        />
        <Typing writing={writing} />
        {writing.error !== null && <Failure error={writing.error} close={() => writing.clearError()} />}
        {error !== null && <Failure error={error} close={() => fail(null)} />}
        <div class="row">
          <button class={writing.signs.length === 0 ? "main" : ""} disabled={writing.busy} onClick={() => void writing.type(PASSAGE)}>
            Read a passage of Alice
          </button>
          <button disabled={trace.length === 0 || twin !== null || writing.busy} onClick={() => void hold(null)}>
            Fork and compare
          </button>
          <Compared model={model} full={full} twin={twin} own={[text.id, twin?.watched.id]} disabled={writing.busy} hold={hold} leave={leave} fail={fail} />
        </div>
        <Generating writing={writing} />
      </div>
      {twin && (
        <Compare key={twin} origin={text} twin={twin.watched} forkedAt={twin.at} other={twin.session && called(twin.session)} leave={leave} step={step} choose={at.chooseStep} />
      )}
      {trace.length > 0 && (
        <>
          <div class="neurons">
            <Heat origin={text} twin={twin} at={at} told={(s) => `“${visible(chars[s] ?? "")}”`} />
            {neuron === null ? (
              <div class="card">
                <p>Point at a row of the map: here you see the neuron's course, how long it remembers, and what drives it. Or have one found by a property, such as “inside quotes”, under “Search”.</p>
              </div>
            ) : (
              <Detail trace={trace} neuron={neuron} step={step} pins={at.pins} pin={at.pin} choose={(n) => at.choose(n, null)} chars={chars} properties={properties} />
            )}
          </div>
          <Searching
            trace={trace}
            properties={properties}
            marked={at.marked}
            mark={at.mark}
            choose={at.choose}
            neuron={neuron}
            context={context}
            how="mark a stretch of the text by dragging, or with shift and the arrow keys."
          />
        </>
      )}
    </>
  );
}

interface ComparedProps {
  model: Model;
  full: Version;
  twin: Beside<Watched> | null;
  /** the sessions that are shown, which are not offered */
  own: readonly (string | null | undefined)[];
  disabled?: boolean;
  hold: (session: SessionInfo | null) => Promise<void>;
  leave: () => void;
  fail: (error: unknown) => void;
}

/** The choice of a session to compare with. */
function Compared({ model, full, twin, own, disabled = false, hold, leave, fail }: ComparedProps) {
  const take = (session: SessionInfo | null) => (session === null ? leave() : void hold(session));
  return <Others model={model} version={full} label="Compare with session" none="none" own={own} chosen={twin?.session ?? null} disabled={disabled} take={take} fail={fail} />;
}

/** The legend of a text that has a neuron's colours. */
function Strength({ name }: { name: string }) {
  return (
    <p class="legend">
      <span class="quiet">{name}, off to its highest:</span>
      {Array.from({ length: 8 }, (_, i) => (
        <span key={i} class={`s n${i}`}>
          {i === 0 ? "0" : i === 7 ? "highest" : "\u00a0"}
        </span>
      ))}
    </p>
  );
}

type Pointing = ReturnType<typeof usePointing>;

interface HeatProps {
  origin: Watched;
  twin: Beside<Watched> | null;
  at: Pointing;
  told: (step: number) => string;
}

/** The map of what was read; of a fork too, and of their difference. */
function Heat({ origin, twin, at, told }: HeatProps) {
  const [which, show] = useState<"origin" | "fork" | "difference">("origin");
  const shown = twin === null ? "origin" : which;
  const trace = useMemo(
    () => (twin === null || shown === "origin" ? origin.trace : shown === "fork" ? twin.watched.trace : difference(origin, twin.watched, twin.at)),
    [origin, twin?.watched, shown, shown === "difference" ? `${origin.trace.length} ${twin!.watched.trace.length}` : ""],
  );
  return (
    <div class="card">
      {twin !== null && (
        <div class="row" role="group" aria-label="Which map">
          {(["origin", "fork", "difference"] as const).map((name) => (
            <button key={name} class="chip" aria-pressed={shown === name} onClick={() => show(name)}>
              {twin.session === null ? name : { origin: "this one", fork: "the other", difference: "difference" }[name]}
            </button>
          ))}
        </div>
      )}
      <NeuronMap
        key={shown}
        trace={trace}
        changed={shown === "fork" ? twin!.watched.changed : origin.changed}
        neuron={at.neuron}
        step={at.step}
        choose={at.choose}
        pin={at.pin}
        told={told}
      />
    </div>
  );
}

function grade(trace: Trace, neuron: number, step: number): number {
  const most = trace.most[neuron]!;
  return most === 0 ? 0 : Math.min(7, Math.ceil((7 * Math.abs(trace.at(step)?.[neuron] ?? 0)) / most - 0.2));
}

function Motion({ model, full, from }: ReadingProps) {
  const [motion] = useState(() => WatchedMotion.of(model, full, from));
  const redraw = useRedraw();
  useEffect(() => motion.changed.follow(redraw), [motion]);
  useEffect(() => () => motion.close(), [motion]);
  const at = usePointing();
  const { neuron, step, marked } = at;
  const { trace, frames } = motion;
  const demos = useDemos(full);
  const names = full.layouts?.[full.layout ?? ""]?.joint_names ?? [];
  const shown = step ?? frames.length - 1;
  const body = frames[shown] ?? demos.drawn[0]?.frames[0] ?? null;
  const lines = useMemo(() => bones(names, body ?? []), [names]);
  const { twin, hold, leave, error, fail } = useBeside<WatchedMotion>(motion, (other) => other.close());
  const slow = Math.floor(frames.length / 15);
  const properties = useMemo(() => ofMotion(frames, names, motion.hz), [slow, motion.playing]);
  return (
    <>
      <div class="card">
        <div class="film">
          <Stage
            body={body}
            bones={lines}
            label={`The body at frame ${shown + 1}`}
            tint={neuron === null || frames.length === 0 ? null : grade(trace, neuron, shown)}
          />
          <div class="view">
            <DemoChips demos={demos} shown={motion.playing} play={(demo) => void motion.play(demo)} />
            {motion.playing !== null && (
              <button onClick={() => motion.stop()}>Stop</button>
            )}
            {motion.error !== null && <Failure error={motion.error} />}
            {error !== null && <Failure error={error} close={() => fail(null)} />}
            <div class="row">
              {motion.playing === null && trace.length > 0 && twin === null && <button onClick={() => void hold(null)}>Fork and compare</button>}
              {motion.playing === null && <Compared model={model} full={full} twin={twin} own={[motion.id, twin?.watched.id]} hold={hold} leave={leave} fail={fail} />}
            </div>
            <p class="note">
              {neuron === null ? "Motions follow one another in one session." : `The body has the colour of ${trace.name(neuron)}: the stronger, the higher it is.`}
            </p>
            {frames.length > 0 && (
              <Film trace={trace} neuron={neuron} frames={frames.length} step={step} marked={marked} mark={at.mark} choose={at.chooseStep} hz={motion.hz} />
            )}
          </div>
        </div>
      </div>
      {twin !== null && (
        <CompareMotions key={twin} origin={motion} twin={twin.watched} forkedAt={twin.at} other={twin.session && called(twin.session)} leave={leave} demos={[...demos.drawn, ...demos.means]} lines={lines} />
      )}
      {trace.length > 0 && (
        <>
          <div class="neurons">
            <Heat origin={motion} twin={twin} at={at} told={(s) => `frame ${s + 1}`} />
            {neuron === null ? (
              <div class="card">
                <p>Point at a row of the map: here you see the neuron's course, how long it remembers, and what it goes with. Or have one found by a property, such as “height of the hips”, under “Search”.</p>
              </div>
            ) : (
              <Detail trace={trace} neuron={neuron} step={step} pins={at.pins} pin={at.pin} choose={(n) => at.choose(n, null)} chars={null} properties={properties} />
            )}
          </div>
          <Searching
            trace={trace}
            properties={properties}
            marked={marked}
            mark={at.mark}
            choose={at.choose}
            neuron={neuron}
            context={(s) => `${(s / motion.hz).toFixed(1)} s`}
            how="mark a stretch with the two sliders under the motions."
          />
        </>
      )}
    </>
  );
}

interface FilmProps {
  trace: Trace;
  neuron: number | null;
  frames: number;
  step: number | null;
  marked: readonly [number, number] | null;
  mark: (stretch: readonly [number, number] | null) => void;
  choose: (step: number | null) => void;
  hz: number;
}

/** Sliders to look at a frame, and to mark a stretch. */
function Film({ frames, step, marked, mark, choose, hz }: FilmProps) {
  const seconds = (frame: number) => `${(frame / hz).toFixed(1)} s`;
  const [from, to] = marked ?? [0, 0];
  return (
    <div class="sliders">
      <label class="field scrub">
        <span>look at {seconds(step ?? frames - 1)}</span>
        <input type="range" min="0" max={frames - 1} value={step ?? frames - 1} onInput={(e) => choose(e.currentTarget.valueAsNumber)} />
      </label>
      <label class="field scrub">
        <span>mark from {seconds(from)}</span>
        <input
          type="range"
          min="0"
          max={frames - 1}
          value={from}
          onInput={(e) => {
            const v = e.currentTarget.valueAsNumber;
            mark([v, Math.max(v + 1, to)]);
            choose(v);
          }}
        />
      </label>
      <label class="field scrub">
        <span>mark to {seconds(to)}</span>
        <input
          type="range"
          min="1"
          max={frames}
          value={to}
          onInput={(e) => {
            const v = e.currentTarget.valueAsNumber;
            mark([Math.min(from, v - 1), v]);
            choose(v - 1);
          }}
        />
      </label>
    </div>
  );
}

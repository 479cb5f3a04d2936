/** Characters: type, see how surprised the model was, have it go on, fork, save and load. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ModelChoice } from "../choice.tsx";
import { desk, modelsOf, newest } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { saveAs } from "../files.ts";
import { RunHere } from "../local/switch.tsx";
import { useObservable, useRedraw } from "../observable.ts";
import { ServiceError, upload, type Model } from "../service.ts";
import { Mattered } from "./mattered.tsx";
import { Paper } from "./paper.tsx";
import { LEVELS, bits, percent, visible, type Guess } from "./surprise.ts";
import { Writing } from "./writing.ts";
import "./characters.css";

const STARTS = ["Prince Andrew looked at the sky and said: ", "KING RICHARD:\nMy lord, ", "It was late in the evening, and "];

export function Characters() {
  const served = useObservable(desk.models);
  const models = modelsOf("text");
  const [writings, put] = useState<Writing[]>([]);
  const [error, fail] = useState<unknown>(null);
  const handed = useObservable(desk.handed);
  const begin = (model: Model) => {
    for (const writing of writings) writing.close(true);
    put([new Writing(model)]);
  };
  useEffect(() => {
    if (writings.length === 0 && models[0]) put([new Writing(models[0])]);
  }, [served]);
  useEffect(() => {
    const model = models.find((m) => m.name === handed?.model);
    if (handed === null || model === undefined) return;
    for (const writing of writings) writing.close(false);
    put([new Writing(model, handed)]);
    desk.handed.set(null);
  }, [handed]);
  if (models.length === 0) return <p class="note">This service has no model of characters.</p>;

  const load = async (file: File) => {
    fail(null);
    try {
      const at = await upload(file);
      const model = models.find((m) => m.name === at.model);
      if (model === undefined) throw new Error(`That is the state of ${at.model}, which reads no characters.`);
      for (const writing of writings) writing.close(false);
      put([new Writing(model, at)]);
    } catch (problem) {
      fail(problem);
    }
  };
  const fork = async (writing: Writing) => {
    fail(null);
    try {
      put([writing, await writing.fork()]);
    } catch (problem) {
      if (!(problem instanceof ServiceError && problem.code === "closed")) fail(problem); // another took its place
    }
  };
  const leave = (writing: Writing) => {
    writing.close(true);
    put(writings.filter((w) => w !== writing));
  };
  return (
    <section class="view" aria-labelledby="characters-title">
      <div class="lead">
        <h2 id="characters-title">Characters</h2>
        <p>The model reads one character at a time. The stronger a colour, the less it expected what came; what it wrote itself is underlined.</p>
      </div>
      <div class="row">
        {models.length > 1 && <ModelChoice models={models} current={writings[0]?.model} choose={begin} />}
        <button onClick={() => begin(writings[0]?.model ?? models[0]!)}>Start again</button>
        <FileButton label="Load a state…" accept=".safetensors" take={(file) => void load(file)} />
        <Legend />
      </div>
      {error !== null && <Failure error={error} close={() => fail(null)} />}
      <div class={writings.length > 1 ? "two" : "view"}>
        {writings.map((writing, i) => (
          <Pane
            key={writing}
            writing={writing}
            name={writings.length > 1 ? (i === 0 ? "Origin" : "Fork") : ""}
            fork={writings.length === 1 ? () => void fork(writing) : null}
            leave={writings.length > 1 ? () => leave(writing) : null}
            fail={fail}
          />
        ))}
      </div>
    </section>
  );
}

export function Legend() {
  return (
    <p class="legend">
      <span class="quiet">surprise, bits:</span>
      {[0, ...LEVELS].map((from, i) => (
        <span key={from} class={`s s${i}`}>
          {i === LEVELS.length ? `${from}+` : from}
        </span>
      ))}
    </p>
  );
}

export function FileButton({ label, accept, take }: { label: string; accept: string; take: (file: File) => void }) {
  const field = useRef<HTMLInputElement>(null);
  return (
    <>
      <button onClick={() => field.current!.click()}>{label}</button>
      <input
        ref={field}
        type="file"
        hidden
        accept={accept}
        aria-label={label}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) take(file);
        }}
      />
    </>
  );
}

interface PaneProps {
  writing: Writing;
  name: string;
  fork: (() => void) | null;
  leave: (() => void) | null;
  fail: (error: unknown) => void;
}

function Pane({ writing, name, fork, leave, fail }: PaneProps) {
  const redraw = useRedraw();
  useEffect(() => writing.changed.follow(redraw), [writing]);
  const [chosen, choose] = useState<number | null>(null);
  const { signs } = writing;
  const recent = signs.slice(-200);
  const told = recent.flatMap((sign) => (sign.logprob === null ? [] : [bits(sign.logprob)]));
  const mean = told.reduce((sum, b) => sum + b, 0) / told.length;
  return (
    <div class="card pane">
      {name !== "" && (
        <div class="row ends">
          <h3>{name}</h3>
          {leave && <button onClick={leave}>Close</button>}
        </div>
      )}
      <Paper
        signs={signs}
        before={writing.before}
        chosen={chosen}
        choose={choose}
        label={`The text of ${name || "the session"}: arrow keys go from character to character`}
        empty="Nothing was read yet. Type below, or take a beginning."
        turn={writing.generating ? 0 : writing.changed.value}
      />
      <Typing writing={writing} />
      {signs.length === 0 && writing.before === 0 && (
        <div class="row">
          {STARTS.map((start) => (
            <button key={start} onClick={() => void writing.type(start)}>
              {start.trim().replace("\n", " ")} …
            </button>
          ))}
        </div>
      )}
      {writing.error !== null && <Failure error={writing.error} close={() => writing.clearError()} />}
      {writing.note !== null && <p class="note">{writing.note}</p>}
      <Generating writing={writing} />
      <RunHere
        left={writing.local?.left ?? null}
        moving={writing.moving}
        disabled={writing.busy}
        toggle={() => void (writing.local === null ? writing.goHere() : writing.goBack())}
        more=" Seeds draw other texts than the server's."
      />
      <Explained writing={writing} chosen={chosen} />
      <Mattered writing={writing} chosen={chosen} />
      <div class="row ends">
        <p class="note">
          {writing.session.id === null
            ? "no session yet: it opens with the first character"
            : `step ${writing.step}, ${writing.before + signs.length} characters`}
          {told.length > 0 && `, ${mean.toFixed(2)} bits a character over the last ${told.length}`}
        </p>
        <div class="row">
          {fork && (
            <button onClick={fork} disabled={signs.length + writing.before === 0 || writing.busy || writing.local !== null}>
              Fork
            </button>
          )}
          <button
            disabled={signs.length + writing.before === 0 || writing.busy || writing.local !== null}
            onClick={() => void writing.save().then(({ name: file, state }) => saveAs(file, state), fail)}
          >
            Save the state
          </button>
        </div>
      </div>
    </div>
  );
}

/** The field that every character goes through. It empties itself: what was read stands in the text above. */
export function Typing({ writing }: { writing: Writing }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const send = () => {
    const text = field.current!.value.replaceAll("\r", "");
    field.current!.value = "";
    if (text !== "") void writing.type(text);
  };
  return (
    <label class="typing">
      <span class="aside">Type here: each character is read at once</span>
      <textarea
        ref={field}
        rows={1}
        placeholder="Type here"
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        onInput={(event) => {
          if (!event.isComposing) send();
        }}
        onCompositionEnd={send}
      />
    </label>
  );
}

export function Generating({ writing }: { writing: Writing }) {
  const [temperature, warm] = useState(0.7);
  const [topP, cut] = useState(1);
  const [seed, sow] = useState("");
  const [length, lengthen] = useState(200);
  const go = () =>
    void writing.generate({ maxChars: length, temperature, topP, ...(seed.trim() === "" ? {} : { seed: Number(seed) }) });
  const drawn = writing.signs.at(-1)?.drawn ?? false;
  return (
    <div class="row">
      {writing.generating ? (
        <button class="main" onClick={() => writing.stop()}>
          Stop
        </button>
      ) : (
        <button class="main" onClick={go}>
          {drawn ? "Go on" : "Continue the text"}
        </button>
      )}
      <label class="field">
        temperature
        <input type="range" min="0" max="2" step="0.05" value={temperature} onInput={(e) => warm(e.currentTarget.valueAsNumber)} />
        <output class="fixed">{temperature.toFixed(2)}</output>
      </label>
      <label class="field">
        top-p
        <input type="range" min="0.05" max="1" step="0.05" value={topP} onInput={(e) => cut(e.currentTarget.valueAsNumber)} />
        <output class="fixed">{topP.toFixed(2)}</output>
      </label>
      <label class="field">
        seed
        <input type="number" min="0" step="1" placeholder="any" value={seed} onInput={(e) => sow(e.currentTarget.value)} />
      </label>
      <label class="field">
        characters
        <input
          type="number"
          min="1"
          max={newest(writing.model).limits.max_generate}
          value={length}
          onInput={(e) => lengthen(Math.max(1, Math.round(e.currentTarget.valueAsNumber || 1)))}
        />
      </label>
    </div>
  );
}

function Explained({ writing, chosen }: { writing: Writing; chosen: number | null }) {
  const sign = chosen === null ? undefined : writing.signs[chosen];
  const guesses: Guess[] | null = sign === undefined ? writing.next : sign.expected;
  return (
    <div class="explained">
      {sign === undefined ? (
        <p>{guesses === null ? "\u00a0" : "Expected next:"}</p>
      ) : (
        <p>
          <b class="mono">{visible(sign.char)}</b>{" "}
          {sign.logprob === null
            ? "is not in the model's alphabet: it read its symbol for unknown characters."
            : `${sign.drawn ? "was drawn" : "came"} where it had ${percent(Math.exp(sign.logprob))} (${bits(sign.logprob).toFixed(1)} bits).`}{" "}
          Expected here:
        </p>
      )}
      <ol class="guesses">
        {guesses === null ? (
          <li class="quiet">{writing.signs.length === 0 ? "nothing yet: before the first character all are alike" : "…"}</li>
        ) : (
          guesses.map((guess) => (
            <li key={guess.char} class={guess.char === sign?.char ? "came" : ""}>
              <span class="mono">{visible(guess.char)}</span>
              <progress max="1" value={guess.p} aria-label={`probability of ${visible(guess.char)}`} />
              <span>{percent(guess.p)}</span>
            </li>
          ))
        )}
      </ol>
    </div>
  );
}

/** How much each earlier character counted for the one that is pointed at. */
import { useEffect, useMemo } from "preact/hooks";
import { Failure } from "../failure.tsx";
import { useRedraw } from "../observable.ts";
import { Explaining } from "../why/explanation.ts";
import { MOST, grade, largest, signed, foremost } from "../why/relevance.ts";
import { visible } from "./surprise.ts";
import type { Writing } from "./writing.ts";
import "../why/why.css";

const STILL = 180; // ms that one has to stay on a character: whoever passes over it asks nothing
const SHOWN = 160; // characters before it that are shown
const KEPT = 200;

interface Counted {
  at: number;
  /** the first character that was told to the service */
  from: number;
  values: readonly number[];
}

export function Mattered({ writing, chosen }: { writing: Writing; chosen: number | null }) {
  const redraw = useRedraw();
  const why = useMemo(() => new Explaining<Counted>(), [writing]);
  const known = useMemo(() => new Map<number, Counted>(), [writing]);
  useEffect(() => why.changed.follow(redraw), [why]);
  const { version, signs } = writing;
  const sign = chosen === null ? undefined : signs[chosen];
  const askable = version.explain && sign !== undefined && sign.logprob !== null && chosen! > 0 && writing.local === null;
  useEffect(() => {
    why.leave();
    if (!askable || known.has(chosen!)) return;
    const at = chosen!;
    const timer = setTimeout(() => {
      const from = Math.max(0, at - MOST);
      const sequence = signs.slice(from, at).map((s) => s.char).join("");
      const unknown = version.unknown === null ? {} : { unknown: "replace" };
      void why.ask({ model: writing.model.name, version: version.version, label: signs[at]!.char, sequence, ...unknown }, (told) => {
        const counted = { at, from, values: told.relevance as number[] };
        if (known.size >= KEPT) known.clear();
        known.set(at, counted);
        return counted;
      });
    }, STILL);
    return () => clearTimeout(timer);
  }, [writing, chosen, askable]);
  useEffect(() => () => why.leave(), [why]);

  if (sign === undefined) return null;
  if (!version.explain) return <p class="note">How much each earlier character counted cannot be shown: this version of {writing.model.name} has no explanation (explain.onnx).</p>;
  if (writing.local !== null) return <p class="note">How much each earlier character counted is told by the service; here, this browser computes.</p>;
  if (sign.logprob === null) return null;
  if (chosen === 0) return <p class="note">Nothing stands before it that could have counted{writing.before > 0 && "; what was read before this page is not known to it"}.</p>;
  if (why.error !== null) return <Failure error={why.error} />;
  const counted = known.get(chosen!);
  if (counted === undefined) return <p class="note">How much each earlier character counted for “{visible(sign.char)}”: …</p>;
  return <Counts writing={writing} counted={counted} />;
}

function Counts({ writing, counted: { at, from, values } }: { writing: Writing; counted: Counted }) {
  const most = largest(values);
  const first = Math.max(from, at - SHOWN);
  const char = visible(writing.signs[at]!.char);
  const before = values.slice(0, first - from).reduce((sum, v) => sum + Math.abs(v), 0);
  const all = values.reduce((sum, v) => sum + Math.abs(v), 0);
  const named = foremost(values, 3);
  const list = (some: typeof named.given) =>
    some.length === 0 ? "nothing" : some.map((w) => `“${visible(writing.signs[from + w.index]!.char)}” ${at - from - w.index} before it ${signed(w.value)}`).join(", ");
  return (
    <div class="explained-by">
      <p>
        How much each earlier character counted for <b class="mono">{char}</b>:
      </p>
      <p class="mattered" aria-hidden="true">
        {first > from && <span class="quiet">…</span>}
        {writing.signs.slice(first, at).map((sign, i) => {
          const g = grade(values[first - from + i]!, most);
          const kind = g === 0 ? "" : g > 0 ? `s${g}` : `n${0 - g} against`;
          return (
            <span key={first + i} class={`${kind}${sign.char === "\n" ? " end" : ""}`} title={signed(values[first - from + i]!)}>
              {sign.char}
            </span>
          );
        })}
        <span class="asked">{writing.signs[at]!.char}</span>
      </p>
      <p class="keys">
        <span>
          <span class="s2">&nbsp;a&nbsp;</span>
          <span class="s4">&nbsp;b&nbsp;</span>
          <span class="s7">&nbsp;c&nbsp;</span> for it: the stronger, the more
        </span>
        <span class="mattered-key">
          <span class="n2">&nbsp;a&nbsp;</span>
          <span class="n4">&nbsp;b&nbsp;</span>
          <span class="n7">&nbsp;c&nbsp;</span> against it, dotted below
        </span>
      </p>
      <p class="note">
        Most for it: {list(named.given)}; against it: {list(named.against)}
        {first > from && all > 0 && `; ${Math.round((100 * before) / all)} % lies further back than is shown`}. “{char}” stands against the mean of all others; gradient times the
        character's own vector, exact, and no cause.{writing.before > 0 && " What was read before this page is not known to it."}
      </p>
    </div>
  );
}

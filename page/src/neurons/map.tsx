/** The heat map on the page: neurons by time, layer by layer, one of them chosen by mouse or arrow keys. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Observable } from "../observable.ts";
import { BOTH, HeatMap, POSITIVE } from "./heat.ts";
import type { Trace } from "./trace.ts";

interface MapProps {
  trace: Trace;
  changed: Observable<number>;
  neuron: number | null;
  step: number | null;
  choose: (neuron: number | null, step: number | null) => void;
  pin: (neuron: number) => void;
  /** a name for what is at a step, such as its character */
  told: (step: number) => string;
}

const ALL = -1;

export function NeuronMap({ trace, changed, neuron, step, choose, pin, told }: MapProps) {
  const [layer, show] = useState(0);
  const shown = layer === ALL ? trace.layers : trace.layers.slice(layer, layer + 1);
  const order = useMemo(() => trace.sorted(shown), [trace, layer]);
  const row = useMemo(() => new Map(Array.from(order, (n, i) => [n, i])), [order]);
  const heat = useMemo(() => new HeatMap(trace, order), [trace, order]);
  const canvas = useRef<HTMLCanvasElement>(null);
  const marks = useRef<HTMLDivElement>(null);
  const chosen = useRef({ neuron, step });
  chosen.current = { neuron, step };

  const place = () => {
    if (marks.current === null) return;
    const [across, down] = Array.from(marks.current.children) as [HTMLElement, HTMLElement];
    const at = chosen.current.neuron === null ? undefined : row.get(chosen.current.neuron);
    across.hidden = at === undefined;
    if (at !== undefined) across.style.top = `${(100 * (at + 0.5)) / order.length}%`;
    const column = chosen.current.step === null ? -1 : chosen.current.step - heat.from;
    down.hidden = column < 0 || column >= heat.width;
    if (!down.hidden) down.style.left = `${(100 * (column + 0.5)) / heat.width}%`;
  };
  useEffect(() => {
    let waiting = false;
    const paint = () => {
      waiting = false;
      if (canvas.current === null || canvas.current.offsetParent === null) return;
      performance.mark("heat");
      heat.paint(canvas.current);
      place();
      performance.measure("heat map", "heat");
    };
    paint();
    return changed.follow(() => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(paint);
    });
  }, [heat, changed]);
  useEffect(place);
  useEffect(() => {
    if (neuron === null || layer === ALL) return;
    const own = trace.layers.indexOf(trace.layerOf(neuron));
    if (own !== layer) show(own);
  }, [neuron]);

  const under = (event: PointerEvent): [number, number] => {
    const box = canvas.current!.getBoundingClientRect();
    const r = Math.min(order.length - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * order.length)));
    const column = Math.floor(((event.clientX - box.left) / box.width) * heat.width);
    return [order[r]!, Math.min(trace.length - 1, heat.from + column)];
  };
  const held = useRef(false);
  const keys = (event: KeyboardEvent) => {
    const r = neuron === null ? 0 : (row.get(neuron) ?? 0);
    const s = step ?? trace.length - 1;
    const to = (by: number) => order[Math.max(0, Math.min(order.length - 1, r + by))]!;
    const when = (by: number) => Math.max(heat.from, Math.min(trace.length - 1, s + by));
    const acts: Record<string, () => void> = {
      ArrowUp: () => choose(to(-1), step),
      ArrowDown: () => choose(to(1), step),
      PageUp: () => choose(to(-25), step),
      PageDown: () => choose(to(25), step),
      ArrowLeft: () => choose(neuron ?? order[0]!, when(-1)),
      ArrowRight: () => choose(neuron ?? order[0]!, when(1)),
      Enter: () => pin(neuron ?? order[0]!),
    };
    const act = acts[event.key];
    if (act === undefined || trace.length === 0) return;
    event.preventDefault();
    held.current = true;
    act();
  };
  const signed = trace.layers.some((l) => l.activation !== "relu" && l.activation !== "sigmoid");
  const text = neuron === null || !row.has(neuron) ? "" : `${trace.name(neuron)}${step === null ? "" : `, after ${told(step)}: ${(trace.at(step)?.[neuron] ?? 0).toFixed(2)}`}`;
  return (
    <div class="heat">
      <div class="row ends">
        <div class="row" role="group" aria-label="Layers">
          {[...trace.layers.map((l, i) => ({ name: l.name, i })), { name: "all", i: ALL }].map(({ name, i }) => (
            <button key={i} class="chip" aria-pressed={layer === i} onClick={() => show(i)}>
              {name}
            </button>
          ))}
        </div>
        <Scale colours={signed ? BOTH : POSITIVE} ends={signed ? ["−", "0", "+"] : ["off", "its highest so far"]} />
      </div>
      <div class="map">
        <p class="axis up">longest memory</p>
        <div class="paint">
          <canvas
            ref={canvas}
            width={heat.width}
            height={order.length}
            tabIndex={0}
            role="img"
            aria-label={`Neurons by time, ${order.length} neurons, the last ${heat.width} steps. Arrow keys choose a neuron and a step, Enter pins the neuron. ${text}`}
            onPointerMove={(event) => {
              if (!held.current) choose(...under(event));
            }}
            onPointerDown={(event) => {
              const [n, s] = under(event);
              held.current = !held.current || n !== neuron;
              choose(n, s);
            }}
            onKeyDown={keys}
          />
          <div class="marks" ref={marks} aria-hidden="true">
            <div class="across" />
            <div class="down" />
          </div>
        </div>
        <p class="axis down">shortest</p>
      </div>
      <p class="note">
        Each row is a neuron, each column a step, {trace.length < heat.width ? "from the left on; the right is still empty" : "the newest at the right"}. {trace.length} steps so far
        {trace.length > heat.width && `, the last ${heat.width} are shown`}. Point at a row; click to stay on it, or use the arrow keys.
      </p>
    </div>
  );
}

function Scale({ colours, ends }: { colours: Uint32Array; ends: string[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const image = new ImageData(256, 1);
    new Uint32Array(image.data.buffer).set(colours);
    canvas.current!.getContext("2d")!.putImageData(image, 0, 0);
  }, [colours]);
  return (
    <p class="scale">
      {ends[0]} <canvas ref={canvas} width={256} height={1} aria-hidden="true" /> {ends.at(-1)}
    </p>
  );
}

/** The stage: a skeleton that moves, turned by dragging or by the arrow keys. */
import { useEffect, useRef } from "preact/hooks";
import { colours } from "../paint.ts";
import type { Bone } from "./bones.ts";

type Body = readonly (readonly number[] | null)[];

interface StageProps {
  body: Body | null;
  bones: readonly Bone[];
  label: string;
  /** a grade from 0 to 7 that the whole body is coloured by, in place of its sides */
  tint?: number | null;
  /** how much each joint counts, −1 to 1: full where it speaks for an answer, a ring where against */
  marks?: readonly number[] | null;
}

interface View {
  turn: number;
  tilt: number;
  centre: readonly number[] | null;
  size: number;
}

export function Stage({ body, bones, label, tint = null, marks = null }: StageProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const view = useRef<View>({ turn: 0.35, tilt: 0.12, centre: null, size: 1.9 });
  const shown = useRef({ body, bones, tint, marks });
  shown.current = { body, bones, tint, marks };
  const paint = () => {
    if (canvas.current !== null) draw(canvas.current, shown.current, view.current);
  };
  useEffect(paint);
  useEffect(() => {
    const watcher = new ResizeObserver(paint);
    watcher.observe(canvas.current!);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", paint);
    return () => {
      watcher.disconnect();
      dark.removeEventListener("change", paint);
    };
  }, []);
  const turn = (by: number, tilt: number) => {
    view.current.turn += by;
    view.current.tilt = Math.max(-1.2, Math.min(1.2, view.current.tilt + tilt));
    paint();
  };
  return (
    <canvas
      ref={canvas}
      class="stage"
      role="img"
      tabIndex={0}
      aria-label={`${label}. Arrow keys turn it.`}
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={(event) => {
        if (event.buttons === 1) turn(event.movementX / 120, event.movementY / 160);
      }}
      onKeyDown={(event) => {
        const way = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
        if (way === undefined) return;
        event.preventDefault();
        turn(way[0]!, way[1]!);
      }}
    />
  );
}

interface Shown {
  body: Body | null;
  bones: readonly Bone[];
  tint: number | null;
  marks: readonly number[] | null;
}

function draw(canvas: HTMLCanvasElement, { body, bones, tint, marks }: Shown, view: View): void {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  if (width === 0) return;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const paint = canvas.getContext("2d")!;
  paint.clearRect(0, 0, width, height);
  const seen = body?.filter((joint) => joint !== null) ?? [];
  if (seen.length === 0) return;
  const middle = [0, 1, 2].map((axis) => {
    const values = seen.map((joint) => joint[axis]!);
    return (Math.min(...values) + Math.max(...values)) / 2;
  });
  // The eye follows slowly, so that a step aside is seen as one.
  view.centre = view.centre === null || Math.hypot(...middle.map((m, i) => m - view.centre![i]!)) > 1.5 ? middle : view.centre.map((c, i) => c + 0.06 * (middle[i]! - c));
  const tall = Math.max(...seen.map((joint) => Math.hypot(...joint.map((v, i) => v - view.centre![i]!)))) * 2.2;
  view.size = tall > view.size * 1.15 || tall < view.size * 0.6 ? tall : view.size;
  const zoom = (0.92 * Math.min(height, width * 1.2)) / view.size;
  const colour = colours("ink", "left", "right", "middle", "line", "edge", "for", "against", "stage", ...(tint === null || tint === 0 ? [] : [`n${tint}`]));
  const whole = marks !== null ? colour["edge"]! : tint === null ? null : tint === 0 ? colour["line"]! : colour[`n${tint}`]!;
  const project = (joint: readonly number[]): [number, number, number] => {
    const [x, y, z] = joint.map((v, i) => v - view.centre![i]!) as [number, number, number];
    const side = x * Math.cos(view.turn) + z * Math.sin(view.turn);
    const deep = z * Math.cos(view.turn) - x * Math.sin(view.turn);
    const up = y * Math.cos(view.tilt) + deep * Math.sin(view.tilt);
    const far = deep * Math.cos(view.tilt) - y * Math.sin(view.tilt);
    const near = 1 / (1 + far / 5);
    return [width / 2 + side * zoom * near, height / 2 - up * zoom * near, near];
  };
  const floor = Math.min(...seen.map((joint) => joint[1]!));
  paint.strokeStyle = colour["line"]!;
  paint.lineWidth = scale;
  for (const ring of [0.3, 0.6, 0.9]) {
    paint.beginPath();
    for (let i = 0; i <= 48; i++) {
      const angle = (i * Math.PI) / 24;
      const [px, py] = project([view.centre[0]! + ring * Math.cos(angle), floor, view.centre[2]! + ring * Math.sin(angle)]);
      if (i === 0) paint.moveTo(px, py);
      else paint.lineTo(px, py);
    }
    paint.stroke();
  }
  paint.lineCap = "round";
  for (const bone of bones) {
    const [a, b] = [body![bone.from], body![bone.to]];
    if (!a || !b) continue;
    const [ax, ay, an] = project(a);
    const [bx, by, bn] = project(b);
    paint.strokeStyle = whole ?? colour[bone.side]!;
    paint.lineWidth = 0.035 * zoom * ((an + bn) / 2);
    paint.beginPath();
    paint.moveTo(ax, ay);
    paint.lineTo(bx, by);
    paint.stroke();
  }
  const head = headOf(bones, body!);
  const top = body![head];
  if (marks !== null && top) {
    const [px, py, near] = project(top);
    paint.fillStyle = colour["edge"]!;
    paint.beginPath();
    paint.arc(px, py, 0.075 * zoom * near, 0, 2 * Math.PI);
    paint.fill();
  }
  paint.fillStyle = colour["ink"]!;
  body!.forEach((joint, i) => {
    if (!joint) return;
    const [px, py, near] = project(joint);
    const mark = marks?.[i];
    paint.beginPath();
    paint.arc(px, py, (mark !== undefined ? 0.012 + 0.06 * Math.sqrt(Math.abs(mark)) : i === head ? 0.075 : 0.022) * zoom * near, 0, 2 * Math.PI);
    if (mark === undefined) {
      paint.fill();
      return;
    }
    const faint = Math.abs(mark) < 0.02;
    paint.fillStyle = faint ? colour["edge"]! : mark > 0 ? colour["for"]! : colour["stage"]!;
    paint.strokeStyle = faint ? colour["edge"]! : mark > 0 ? colour["for"]! : colour["against"]!;
    paint.lineWidth = 0.014 * zoom * near;
    paint.fill();
    paint.stroke();
  });
}

/** The highest end of a middle line is drawn as a head. */
function headOf(bones: readonly Bone[], body: Body): number {
  const ends = bones.filter((bone) => bone.side === "middle").map((bone) => bone.from);
  const first = ends[0];
  return first !== undefined && body[first] && bones.some((bone) => bone.side !== "middle") ? first : -1;
}

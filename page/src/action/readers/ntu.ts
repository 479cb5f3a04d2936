/** NTU RGB+D's `.skeleton`: the number of frames, then of each frame its bodies, each a line and its joints. */
import { NotReadable, type Joint, type Recording } from "../recording.ts";

export function readNtu(text: string): Recording {
  const lines = text.split(/\r?\n/);
  let at = 0;
  const whole = (what: string): number => {
    const n = Number(lines[at++]?.trim() || NaN);
    if (!Number.isInteger(n) || n < 0) throw new NotReadable(`Line ${at}: expected ${what}.`);
    return n;
  };
  const bodies = new Map<string, Map<number, Joint[]>>();
  const count = whole("the number of frames");
  for (let t = 0; t < count; t++) {
    const present = whole("the number of bodies");
    for (let b = 0; b < present; b++) {
      const id = lines[at++]?.trim().split(/\s+/)[0] ?? "";
      const joints = whole("the number of joints");
      const frame: Joint[] = [];
      for (let j = 0; j < joints; j++) {
        const place = lines[at++]?.trim().split(/\s+/).slice(0, 3).map(Number) ?? [];
        if (place.length < 3) throw new NotReadable(`Line ${at}: expected a joint.`);
        frame.push(place.every((v) => Number.isFinite(v)) && place.some((v) => v !== 0) ? place : null);
      }
      const frames = bodies.get(id) ?? new Map<number, Joint[]>();
      bodies.set(id, frames.set(t, frame));
    }
  }
  const longest = [...bodies.values()].sort((a, b) => b.size - a.size)[0];
  if (longest === undefined) throw new NotReadable("Nobody is in the file.");
  const frames = [...longest.keys()].sort((a, b) => a - b).map((t) => longest.get(t)!);
  const others = bodies.size > 1 ? `, the longest seen of ${bodies.size} bodies` : "";
  return { format: `NTU RGB+D${others}`, clips: [{ name: "clip 1", frames }], names: null, hz: 30 };
}

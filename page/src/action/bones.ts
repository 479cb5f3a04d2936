/** Which joints of a layout a line joins. */

const CHAINS = [
  ["head", "shoulder centre", "spine", "hip centre"],
  ["head", "neck", "spine shoulder", "spine middle", "spine base"],
  ["head", "neck", "spine"],
  ["shoulder centre|spine shoulder|neck", "SIDE shoulder", "SIDE elbow", "SIDE wrist", "SIDE hand"],
  ["hip centre|spine base|spine", "SIDE hip", "SIDE knee", "SIDE ankle", "SIDE foot"],
];

export interface Bone {
  from: number;
  to: number;
  side: "left" | "right" | "middle";
}

/** Return the lines between joints of those names. Where names say nothing, each joint of a still body is joined to its nearest. */
export function bones(names: readonly string[], still: readonly (readonly number[] | null)[]): Bone[] {
  const found: Bone[] = [];
  const at = (name: string) => name.split("|").map((n) => names.indexOf(n)).find((i) => i >= 0) ?? -1;
  const add = (chain: string[], side: Bone["side"]) => {
    const joints = chain.map(at);
    for (let i = 1; i < joints.length; i++) {
      const [from, to] = [joints[i - 1]!, joints[i]!];
      if (from >= 0 && to >= 0 && !found.some((b) => b.from === from && b.to === to)) found.push({ from, to, side });
    }
  };
  for (const chain of CHAINS) {
    if (!chain[1]!.includes("SIDE")) add(chain, "middle");
    else for (const side of ["left", "right"] as const) add(chain.map((name) => name.replace("SIDE", side)), side);
  }
  return found.length >= names.length / 2 ? found : nearest(still);
}

/** The tree of the shortest lines (Prim). */
function nearest(still: readonly (readonly number[] | null)[]): Bone[] {
  const left = new Set(still.flatMap((p, i) => (p && i > 0 ? [i] : [])));
  const reached = [0];
  const found: Bone[] = [];
  const apart = (a: number, b: number) => Math.hypot(...still[a]!.map((v, i) => v - still[b]![i]!));
  while (left.size > 0 && still[0]) {
    let best: Bone | null = null;
    for (const to of left) for (const from of reached) if (!best || apart(from, to) < apart(best.from, best.to)) best = { from, to, side: "middle" };
    found.push(best!);
    reached.push(best!.to);
    left.delete(best!.to);
  }
  return found;
}

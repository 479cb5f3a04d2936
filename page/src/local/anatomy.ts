/** Whether what stands there can be a body: the service's evidence (frames/anatomy.py), gathered on in the browser. */

/** What bodies of a model are like, as `GET /models/{name}` tells it: pairs of joints with their metres, and limits; null is not checked. */
export interface Bodies {
  pairs: [number, number, number][];
  limits: Record<"size" | "shape" | "limb" | "breath" | "change" | "up" | "upright" | "down" | "side" | "flat" | "absent", number | null>;
}

export const ENTRIES = 16; // numbers of evidence a person
const [FRAMES, SIZE, SIZE2, SHAPE, LIMB, FLAT, STANDS, UP, SIDED, SIDE, FOLLOWS, CHANGE, EVER, UPRIGHT, UNSEEN] = Array.from({ length: 15 }, (_, i) => i) as [
  number, number, number, number, number, number, number, number, number, number, number, number, number, number, number
]; // prettier-ignore
const MEMORY = 4; // seconds
const FEWEST = 4; // frames before anything is doubted
const FEWEST_POSES = 7;
const SHORTEST = 1e-4; // metres
const CLIPPED = 1.5;
const STANDING = 0.6; // cosine of trunk and vertical
const FARTHEST = 1000; // metres
const NO_DEPTH = 1e-3; // metres
const BITS = 24;

/** What the service says of each check that fails. */
const WORDS: Record<string, string> = {
  size: "this is not of a person's size: expected metres",
  shape: "the lengths between the joints are not those of a body: expected the joints in the order of the layout",
  change: "the lengths between the joints change as no body's do",
  upright: "the head is not above the hips: expected y up",
  sides: "hands and feet point backwards: expected the left hand of who faces the camera at negative x, and z away from it",
  nobody: "nobody is seen: expected joints with places, of a body or of most of one",
  flat: "the body has no depth: expected places in three dimensions",
};

type Line = [joint: number, weight: number][];
type Place = [number, number, number];

/** One body in one frame: what is read from it, as far as its joints were seen. */
interface Look {
  known: boolean;
  posed: boolean;
  /** logarithms of the pairs' lengths beside the usual ones */
  off: number[];
  good: boolean[];
  drawn: Place[];
  length: number[];
  flat: boolean;
}

export class Anatomy {
  private readonly lines: Line[];
  private readonly ups: number;
  private readonly sided: boolean;
  private readonly posing: Set<number>;

  constructor(
    names: readonly string[],
    private readonly bodies: Bodies,
    private readonly hz: number,
  ) {
    const has = (...wanted: string[]) => wanted.every((name) => names.includes(name));
    const line = (weights: Record<string, number>): Line => Object.entries(weights).map(([name, weight]) => [names.indexOf(name), weight]);
    const both = (joint: string) => [`left ${joint}`, `right ${joint}`] as const;
    const upright: Line[] = [];
    for (const [top, low] of [[both("shoulder"), both("hip")], [["head"], ["hip centre"]]] as const) {
      if (has(...top, ...low)) upright.push(line(Object.fromEntries([...top.map((n) => [n, 1]), ...low.map((n) => [n, -1])]) as Record<string, number>));
    }
    const across = Object.fromEntries(["shoulder", "hip"].flatMap((joint) => [[`left ${joint}`, -1], [`right ${joint}`, 1]])) as Record<string, number>;
    const forward = { foot: 0.8, ankle: -0.8, hand: 0.1, shoulder: -0.1, wrist: 0.3, elbow: -0.3 };
    const ahead = Object.fromEntries(Object.entries(forward).flatMap(([joint, w]) => both(joint).map((n) => [n, w]))) as Record<string, number>;
    this.ups = upright.length;
    this.sided = upright.length > 0 && has(...Object.keys(across), ...Object.keys(ahead));
    const stance = [...upright, ...(this.sided ? [line(across), line(ahead)] : [])];
    this.lines = [...bodies.pairs.map(([a, b]): Line => [[a, 1], [b, -1]]), ...stance];
    this.posing = new Set(stance.flatMap((one) => one.map(([joint]) => joint)));
  }

  /** Take a person's frame [J][3] into evidence [16], which is changed; before: the frame before it; lost: joints that hold their place. */
  look(before: Float32Array, frame: Float32Array, lost: readonly boolean[], evidence: Float32Array): void {
    const earlier = this.read(before, lost.map((_, j) => unseen(evidence, j)));
    const now = this.read(frame, lost);
    const told = this.told(earlier, now);
    const forget = Math.exp(-1 / (MEMORY * this.hz));
    for (let i = 0; i < UNSEEN; i++) evidence[i] = evidence[i]! * (i === EVER || i === UPRIGHT ? 1 : forget) + told[i]!;
    for (let half = 0; half < 2; half++) {
      evidence[UNSEEN + half] = lost.slice(half * BITS, (half + 1) * BITS).reduce((sum, gone, bit) => sum + (gone ? 2 ** bit : 0), 0);
    }
  }

  /** Return the names of the checks that evidence fails. */
  doubts(e: Float32Array): string[] {
    const m = this.bodies.limits;
    const at = (i: number) => e[i]!;
    const beyond = (total: number, limit: number | null, count: number) => limit !== null && total > limit * count;
    const less = (limit: number | null) => (limit === null ? null : -limit);
    const some = at(FRAMES) >= FEWEST;
    const posed = at(STANDS) >= FEWEST_POSES;
    const breath = m.breath === null ? null : m.breath ** 2;
    const failed = {
      size: some && beyond(Math.abs(at(SIZE)), m.size, at(FRAMES)),
      shape: some && (beyond(at(SHAPE), m.shape, at(FRAMES)) || beyond(at(LIMB), m.limb, at(FRAMES))),
      change: some && (beyond(at(SIZE2) * at(FRAMES) - at(SIZE) ** 2, breath, at(FRAMES) ** 2) || beyond(at(CHANGE), m.change, at(FOLLOWS))),
      upright:
        posed && ((beyond(-at(UP), less(m.up), at(STANDS)) && at(UPRIGHT) < (m.upright ?? 0) * at(EVER)) || beyond(-at(UP), less(m.down), at(STANDS))),
      sides: posed && beyond(-at(SIDE), m.side, at(SIDED)),
      flat: some && beyond(at(FLAT), m.flat, at(FRAMES)),
    };
    return Object.entries(failed).flatMap(([name, fails]) => (fails ? [name] : []));
  }

  /** Return whether nobody of all persons is there, as the name of a check that fails. */
  absence(persons: readonly Float32Array[]): string[] {
    return persons.reduce((sum, e) => sum + e[FRAMES]!, 0) < (this.bodies.limits.absent ?? 0) ? ["nobody"] : [];
  }

  private read(x: Float32Array, lost: readonly boolean[]): Look {
    const n = this.bodies.pairs.length;
    const clipped = (v: number) => Math.max(-FARTHEST, Math.min(FARTHEST, v));
    const drawn = this.lines.map((line) => {
      const at: Place = [0, 0, 0];
      for (const [joint, weight] of line) for (let k = 0; k < 3; k++) at[k]! += weight * clipped(x[3 * joint + k]!);
      return at;
    });
    const length = drawn.map(([a, b, c]) => Math.sqrt(Math.max(a * a + b * b + c * c, SHORTEST ** 2)));
    const there = x.some((v) => v !== 0);
    const good = this.bodies.pairs.map(([a, b]) => !lost[a] && !lost[b]);
    const depth = lost.map((_, j) => clipped(x[3 * j + 2]!));
    return {
      known: there && good.filter(Boolean).length >= Math.max(2, Math.floor(n / 3)),
      posed: there && !lost.some((gone, j) => gone && this.posing.has(j)),
      off: this.bodies.pairs.map(([, , metres], i) => Math.log(length[i]!) - Math.log(metres)),
      good,
      drawn: drawn.slice(n),
      length: length.slice(n),
      flat: Math.max(...depth) - Math.min(...depth) < NO_DEPTH,
    };
  }

  private told(before: Look, now: Look): number[] {
    const told = new Array<number>(UNSEEN).fill(0);
    if (now.known) {
      const seen = now.off.filter((_, i) => now.good[i]).sort((a, b) => a - b);
      const size = seen.length === 0 ? 0 : (seen[(seen.length - 1) >> 1]! + seen[seen.length >> 1]!) / 2;
      const far = seen.map((off) => Math.abs(off - size));
      told[FRAMES] = 1;
      told[SIZE] = size;
      told[SIZE2] = size * size;
      told[SHAPE] = far.reduce((sum, f) => sum + Math.min(f, CLIPPED), 0) / Math.max(seen.length, 1);
      told[LIMB] = Math.max(0, ...far);
      told[FLAT] = now.flat ? 1 : 0;
      if (before.known) {
        const changes = now.off.flatMap((off, i) => (now.good[i] && before.good[i] ? [Math.abs(off - before.off[i]!)] : []));
        told[FOLLOWS] = 1;
        told[CHANGE] = changes.reduce((sum, c) => sum + c, 0) / Math.max(changes.length, 1);
      }
    }
    if (now.posed && this.ups > 0) this.stance(now, told);
    return told;
  }

  /** Tell how a body stands: the least cosine of its lines and the vertical, and how far it points forward. */
  private stance({ drawn, length }: Look, told: number[]): void {
    const up = Math.min(...drawn.slice(0, this.ups).map(([, y], i) => y / length[i]!));
    told[STANDS] = told[EVER] = 1;
    told[UP] = up;
    told[UPRIGHT] = up > STANDING ? 1 : 0;
    if (!this.sided) return;
    const [[ux, uy, uz], [ax, ay, az], [fx, fy, fz]] = [drawn[0]!, drawn[this.ups]!, drawn[this.ups + 1]!];
    const ahead = (uy * az - uz * ay) * fx + (uz * ax - ux * az) * fy + (ux * ay - uy * ax) * fz;
    told[SIDED] = 1;
    told[SIDE] = ahead / (length[0]! * length[this.ups]!);
  }
}

/** Return the service's words for checks that fail. */
export function wordsOf(doubts: readonly string[]): string[] {
  return doubts.map((name) => WORDS[name] ?? name);
}

function unseen(evidence: Float32Array, joint: number): boolean {
  if (joint >= 2 * BITS) return false;
  const bits = evidence[UNSEEN + Math.floor(joint / BITS)]!;
  return (bits >>> joint % BITS) % 2 === 1;
}

/** Read numbers as the service writes them into a state's metadata: float32 in hex. */
export function fromHex(text: string): Float32Array {
  const bytes = Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
  return new Float32Array(bytes.buffer);
}

/** Write them so. */
export function toHex(values: Float32Array): string {
  return Array.from(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), (b) => b.toString(16).padStart(2, "0")).join("");
}

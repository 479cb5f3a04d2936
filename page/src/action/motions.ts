/**
 * Demo motions: drawn by hand as where hands, hips and feet are when, no recording. The rest of the body follows by its bones' lengths.
 *
 * The order of joints is `utd20`, y up, metres, 30 Hz; x is to the right of who faces the camera, z away from it.
 */

export const HZ = 30;
const AWAY = 2.9; // metres from the camera
const FORWARD = -1; // along z

/** Places over time: [second, x, y, z] in centimetres from where the hips stand at the start. */
type Track = readonly (readonly [number, number, number, number])[];
/** Angles over time: [second, degrees]. */
type Turn = readonly (readonly [number, number])[];

interface Motion {
  name: string;
  seconds: number;
  right?: Track;
  left?: Track;
  /** how far the hips are from where they stand */
  hips?: Track;
  rightFoot?: Track;
  leftFoot?: Track;
  lean?: Turn;
  twist?: Turn;
}

type Point = [number, number, number];

const REST = {
  head: [0, 62, -3], neck: [0, 42, 2], spine: [0, 8, 2], shoulder: [17, 32, 2], hand: [23, -25, -9],
  hip: [8, -7, -3], ankle: [9, -88, 6],
} as const; // prettier-ignore
const UPPER_ARM = 27.5;
const FOREARM = 24.4;
const HAND = 7.3;
const THIGH = 46.6;
const SHIN = 35.1;

const RH = 23, RY = -25, RZ = -9; // prettier-ignore
const swing = (from: number, to: number, every: number, a: Point, b: Point): Track =>
  Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, i) => [from + i * every, ...(i % 2 ? b : a)] as const);
const mirror = (track: Track): Track => track.map(([t, x, y, z]) => [t, -x, y, z] as const);
const shift = (track: Track, seconds: number): Track => track.map(([t, x, y, z]) => [t + seconds, x, y, z] as const);
const round = (from: number, to: number, turns: number, begin: number, radius: number, centre: Point): Track =>
  Array.from({ length: Math.round(12 * Math.abs(turns)) + 1 }, (_, i) => {
    const angle = begin + (turns * 2 * Math.PI * i) / Math.round(12 * Math.abs(turns));
    const t = from + ((to - from) * i) / Math.round(12 * Math.abs(turns));
    return [t, centre[0] + radius * Math.sin(angle), centre[1] + radius * Math.cos(angle), centre[2]] as const;
  });
const rest = (t: number) => [t, RH, RY, RZ] as const;

const clap: Track = [
  ...[rest(0.3), [0.55, 20, 20, -24] as const],
  ...swing(0.7, 1.3, 0.15, [4, 33, -24], [16, 34, -26]),
  ...[[1.5, 14, 12, -26] as const, rest(1.8)],
];
const curl: Track = [
  ...[rest(0.25), [0.5, 27, -20, -10] as const, [0.7, 20, 6, -35] as const, [0.92, 11, 40, -19] as const, [1, 11, 40, -15] as const],
  ...[[1.2, 11, 38, -15] as const, [1.42, 16, 14, -33] as const, [1.6, 25, -15, -22] as const, rest(1.85)],
];
const stepping = (lift: number, back: number, every: number, from: number, to: number): Track => [
  [from, 9, -88, 6],
  ...swing(from + every / 2, to, every, [9, -88 + lift, 6 + back], [9, -88, 4]),
  [to + every / 2, 9, -88, 6],
];

export const MOTIONS: readonly Motion[] = [
  {
    name: "wave", seconds: 2.2,
    right: [
      rest(0.3), [0.6, 26, 35, -30], [0.75, 10, 60, -32], ...swing(0.85, 1.5, 0.16, [26, 59, -32], [6, 60, -31]), [1.65, 27, 25, -32],
      rest(2),
    ],
  },
  {
    name: "swipe left", seconds: 2,
    right: [rest(0.25), [0.5, 32, 31, -40], [0.75, -10, 46, -42], [1, -31, 38, -33], [1.25, -6, 5, -33], rest(1.55)],
  },
  {
    name: "swipe right", seconds: 2,
    right: [rest(0.25), [0.5, -20, 34, -31], [0.72, 5, 49, -45], [0.95, 48, 43, -36], [1.2, 44, 20, -31], rest(1.6)],
  },
  { name: "front clap", seconds: 2, right: clap, left: mirror(clap) },
  {
    name: "throw", seconds: 2,
    right: [
      rest(0.2), [0.42, 42, 10, 5], [0.6, 40, 48, 18], [0.78, 20, 66, 4], [0.95, 9, 56, -58], [1.15, 14, 30, -54], [1.4, 23, -10, -30],
      rest(1.65),
    ],
    twist: [[0.4, 0], [0.65, 16], [0.95, -14], [1.4, 0]],
  },
  {
    name: "cross arms", seconds: 2.2,
    right: [rest(0.25), [0.5, 22, 5, -26], [0.75, -9, 35, -29], [1.4, -12, 31, -25], [1.65, 18, -8, -24], rest(1.9)],
    left: [[0.25, -RH, RY, RZ], [0.5, -22, 2, -26], [0.75, 10, 25, -28], [1.4, 10, 25, -23], [1.65, -18, -8, -24], [1.9, -RH, RY, RZ]],
  },
  {
    name: "basketball shoot", seconds: 2.1,
    right: [rest(0.3), [0.55, 12, 40, -22], [0.85, 7, 64, -20], [1.02, 8, 80, -44], [1.2, 10, 55, -44], [1.5, 18, -10, -20], rest(1.8)],
    left: [
      [0.3, -RH, RY, RZ], [0.55, -5, 38, -25], [0.85, -4, 62, -20], [1.02, -6, 74, -38], [1.2, -8, 50, -40], [1.5, -18, -10, -20],
      [1.8, -RH, RY, RZ],
    ],
    hips: [[0.7, 0, -3, 0], [0.86, 0, 3, -2], [1.02, 0, 12, -2], [1.2, 0, 2, -2], [1.4, 0, 0, 0]],
    rightFoot: [[0.86, 9, -88, 6], [1.02, 9, -76, 6], [1.2, 9, -87, 6]],
    leftFoot: [[0.86, -9, -88, 6], [1.02, -9, -76, 6], [1.2, -9, -87, 6]],
  },
  {
    name: "draw x", seconds: 2.1,
    right: [rest(0.2), [0.5, 28, 60, -37], [0.8, -20, 20, -33], [1.02, -5, 55, -40], [1.1, -8, 58, -40], [1.38, 29, 5, -33], rest(1.75)],
  },
  { name: "draw circle CW", seconds: 2.5, right: [rest(0.2), ...round(0.5, 1.85, 1.6, Math.PI, 22, [8, 34, -38]), rest(2.25)] },
  { name: "draw circle CCW", seconds: 2.5, right: [rest(0.2), ...round(0.5, 1.85, -1.6, Math.PI, 22, [10, 34, -38]), rest(2.25)] },
  {
    name: "draw triangle", seconds: 2.5,
    right: [rest(0.2), [0.55, 4, 66, -38], [0.85, -20, 22, -36], [1.25, 36, 20, -39], [1.6, 2, 66, -36], [1.9, 16, 15, -35], rest(2.2)],
  },
  {
    name: "bowling", seconds: 2.6,
    right: [rest(0.3), [0.65, 31, -14, 30], [0.95, 24, -42, -20], [1.25, 11, -17, -100], [1.6, 26, -36, -32], rest(2.1)],
    left: [[0.3, -RH, RY, RZ], [0.7, -18, -30, -20], [1.05, -24, -45, -42], [1.4, -18, -42, -42], [2.1, -RH, RY, RZ]],
    hips: [[0.3, 0, 0, 0], [0.65, 6, -6, -12], [0.95, 0, -26, -34], [1.25, -1, -27, -46], [1.65, 3, -10, -24], [2.1, 0, 0, 0]],
    leftFoot: [[0.35, -9, -88, 6], [0.9, -12, -88, -70], [1.4, -12, -88, -70], [2, -9, -88, 6]],
    lean: [[0.3, 0], [0.7, 18], [1.2, 28], [2, 0]],
  },
  {
    name: "boxing", seconds: 2.3,
    right: [rest(0.25), [0.5, 16, 20, -18], ...swing(0.65, 1.65, 0.2, [7, 36, -58], [12, 30, -14]), rest(2)],
    left: [[0.25, -RH, RY, RZ], [0.5, -13, 24, -22], ...swing(0.65, 1.65, 0.2, [-12, 31, -14], [-4, 34, -56]), [2, -RH, RY, RZ]],
  },
  {
    name: "baseball swing", seconds: 2.5,
    right: [
      rest(0.3), [0.65, 40, 16, -8], [0.9, 30, 42, 2], [1.15, 30, 44, 4], [1.32, 16, 8, -32], [1.5, -40, 30, -22], [1.75, -40, 30, -14],
      [2, -18, -6, -22], rest(2.25),
    ],
    left: [
      [0.3, -RH, RY, RZ], [0.65, 22, 12, -18], [0.9, 35, 42, -4], [1.15, 36, 46, -2], [1.32, 32, 14, -28], [1.5, -8, 8, -28],
      [1.75, -14, 13, -20], [2, -24, -10, -16], [2.25, -RH, RY, RZ],
    ],
    twist: [[0.4, 0], [1, 28], [1.2, 28], [1.5, -30], [1.8, -25], [2.2, 0]],
  },
  {
    name: "tennis swing", seconds: 2.2,
    right: [
      rest(0.3), [0.55, 42, 0, 20], [0.75, 52, 20, 42], [0.92, 44, 20, 45], [1.1, 40, -8, -22], [1.28, -5, 45, -50], [1.5, -15, 44, -42],
      [1.75, 8, -8, -25], rest(2),
    ],
    twist: [[0.3, 0], [0.8, 25], [1.25, -22], [1.5, -18], [1.9, 0]],
  },
  { name: "arm curl", seconds: 2.1, right: curl, left: mirror(curl) },
  {
    name: "tennis serve", seconds: 2.3,
    right: [
      rest(0.4), [0.68, 34, -8, 10], [0.88, 38, 38, 28], [1.05, 24, 72, 8], [1.2, 9, 62, -62], [1.42, 9, 24, -60], [1.7, 20, -18, -20],
      rest(1.95),
    ],
    left: [
      [0.2, -RH, RY, RZ], [0.45, 5, 30, -46], [0.62, 12, 64, -34], [0.85, 12, 30, -42], [1.1, -18, -12, -24], [1.4, -27, -22, -10],
      [1.9, -RH, RY, RZ],
    ],
    twist: [[0.6, 0], [0.95, 14], [1.25, -16], [1.7, 0]],
  },
  {
    name: "push", seconds: 2,
    right: [rest(0.3), [0.5, 22, 20, -12], [0.65, 16, 40, -22], [0.82, 11, 40, -58], [1.1, 11, 37, -58], [1.35, 19, 8, -38], rest(1.65)],
    left: [
      [0.3, -RH, RY, RZ], [0.5, -24, 20, -14], [0.65, -16, 40, -22], [0.82, -11, 38, -58], [1.1, -12, 36, -57], [1.35, -18, 8, -38],
      [1.65, -RH, RY, RZ],
    ],
  },
  {
    name: "knock", seconds: 2.1,
    right: [
      rest(0.25), [0.5, 22, 35, -27], [0.65, 13, 58, -28], ...swing(0.78, 1.36, 0.14, [13, 56, -41], [12, 60, -30]), [1.5, 20, 22, -40],
      rest(1.85),
    ],
  },
  {
    name: "catch", seconds: 2,
    right: [
      rest(0.3), [0.52, 25, 38, -22], [0.68, 18, 69, -34], [0.85, 15, 71, -46], [1, 16, 65, -43], [1.25, 20, 45, -36],
      [1.45, 23, 5, -26], rest(1.75),
    ],
  },
  {
    name: "pickup and throw", seconds: 2.7,
    right: [
      rest(0.3), [0.6, 24, -45, -6], [0.85, 18, -76, -14], [1.1, 24, -45, -5], [1.35, 36, 25, 8], [1.5, 24, 62, -2], [1.66, 9, 56, -58],
      [1.85, 15, 25, -52], [2.1, 23, -15, -26], rest(2.35),
    ],
    left: [[0.3, -RH, RY, RZ], [0.6, -20, -36, 0], [0.85, -10, -50, 4], [1.1, -9, -40, -8], [1.4, -20, -25, -12], [2.3, -RH, RY, RZ]],
    hips: [[0.3, 0, 0, 0], [0.85, 0, -36, 11], [1.1, 0, -22, 8], [1.4, 0, 0, -1], [1.6, 0, 3, -2], [2, 0, 0, 0]],
    lean: [[0.3, 0], [0.85, 38], [1.1, 24], [1.4, -4], [1.7, 10], [2.1, 0]],
  },
  {
    name: "jog", seconds: 2.4,
    right: [rest(0.25), [0.45, 18, -6, -12], ...swing(0.6, 1.8, 0.18, [11, 8, -24], [19, -8, -6]), rest(2.1)],
    left: [[0.25, -RH, RY, RZ], [0.45, -18, -6, -12], ...swing(0.6, 1.8, 0.18, [-19, -8, -6], [-11, 8, -24]), [2.1, -RH, RY, RZ]],
    rightFoot: shift(stepping(24, 14, 0.18, 0.4, 1.7), 0),
    leftFoot: mirror(shift(stepping(24, 14, 0.18, 0.4, 1.7), 0.18)),
    hips: swing(0.5, 1.9, 0.09, [0, 0, 0], [0, 4, 0]),
  },
  {
    name: "walk", seconds: 2.5,
    right: [rest(0.2), ...swing(0.5, 1.9, 0.32, [23, -20, 10], [18, -16, -20]), rest(2.25)],
    left: [[0.2, -RH, RY, RZ], ...swing(0.5, 1.9, 0.32, [-18, -16, -20], [-23, -20, 10]), [2.25, -RH, RY, RZ]],
    rightFoot: stepping(9, -4, 0.32, 0.3, 1.9),
    leftFoot: mirror(shift(stepping(9, -4, 0.32, 0.3, 1.7), 0.32)),
  },
  {
    name: "sit to stand", seconds: 1.9,
    hips: [[0, 0, -33, 36], [0.45, 0, -34, 34], [0.65, 0, -36, 28], [0.85, 0, -26, 16], [1.1, 0, -3, 4], [1.3, 0, 0, 0]],
    lean: [[0, 0], [0.4, 6], [0.75, 30], [1, 20], [1.25, 0]],
    right: [[0, 18, -51, 18], [0.5, 18, -52, 16], [0.75, 18, -54, 6], [1.1, 22, -26, -4], rest(1.35)],
    left: [[0, -20, -54, 20], [0.5, -20, -55, 18], [0.75, -18, -55, 8], [1.1, -22, -26, -4], [1.35, -RH, RY, RZ]],
  },
  {
    name: "stand to sit", seconds: 1.9,
    hips: [[0.35, 0, 0, 0], [0.6, 0, -6, 6], [0.85, 0, -24, 18], [1.1, 0, -35, 26], [1.35, 0, -33, 34], [1.5, 0, -32, 36]],
    lean: [[0.35, 0], [0.8, 26], [1.1, 20], [1.45, 0]],
    right: [rest(0.35), [0.65, 18, -36, 2], [1, 17, -54, 8], [1.3, 19, -52, 16], [1.5, 19, -50, 18]],
    left: [[0.35, -RH, RY, RZ], [0.65, -18, -38, 2], [1, -17, -55, 12], [1.3, -19, -54, 18], [1.5, -19, -53, 20]],
  },
  {
    name: "lunge", seconds: 2.6,
    hips: [
      [0.3, 0, 0, 0], [0.65, 4, -7, -14], [0.95, 0, -28, -38], [1.3, 0, -37, -41], [1.65, 3, -10, -26], [1.95, 4, -1, -6],
      [2.2, 0, 0, 0],
    ],
    leftFoot: [
      [0.35, -9, -88, 6], [0.6, -10, -80, -40], [0.85, -11, -88, -78], [1.35, -11, -88, -78], [1.7, -10, -80, -30], [2, -9, -88, 6],
    ],
    right: [rest(0.3), [0.65, 26, -30, -14], [0.95, 22, -54, -40], [1.3, 21, -64, -45], [1.65, 24, -34, -28], rest(2.1)],
    left: [
      [0.3, -RH, RY, RZ], [0.65, -20, -30, -18], [0.95, -22, -54, -44], [1.3, -20, -63, -46], [1.65, -18, -34, -30], [2.1, -RH, RY, RZ],
    ],
  },
  {
    name: "squat", seconds: 2.8,
    hips: [[0.7, 0, 0, 0], [1.1, 0, -29, 5], [1.55, 0, -29, 5], [1.95, 0, 0, 1]],
    right: [
      rest(0.2), [0.45, 25, 10, -44], [0.65, 13, 38, -53], [1.1, 14, 6, -54], [1.55, 14, 6, -54], [1.95, 14, 35, -53],
      [2.2, 20, 12, -38], rest(2.5),
    ],
    left: mirror([
      rest(0.2), [0.45, 25, 10, -42], [0.65, 16, 38, -52], [1.1, 17, 5, -53], [1.55, 17, 5, -53], [1.95, 18, 34, -51],
      [2.2, 21, 12, -38], rest(2.5),
    ]),
  },
]; // prettier-ignore

/** Return the frames of a motion, [T][20][3] in metres. */
export function frames(motion: Motion): number[][][] {
  const count = Math.round(motion.seconds * HZ);
  return Array.from({ length: count }, (_, t) => pose(motion, t / HZ));
}

function pose(motion: Motion, t: number): number[][] {
  const hips = motion.hips ? place(motion.hips, t) : ([0, 0, 0] as Point);
  const lean = motion.lean ? angle(motion.lean, t) : 0;
  const twist = motion.twist ? angle(motion.twist, t) : 0;
  const trunk = (p: readonly number[]): Point => {
    const [x, y, z] = about(p, twist);
    return [x + hips[0], y * Math.cos(lean) + z * FORWARD * -Math.sin(lean) + hips[1], z * Math.cos(lean) + FORWARD * y * Math.sin(lean) + hips[2]];
  };
  const side = (sign: number, hand: Track | undefined, foot: Track | undefined) => {
    const flip = (p: readonly number[]): Point => [sign * p[0]!, p[1]!, p[2]!];
    const shoulder = trunk(flip(REST.shoulder));
    const [elbow, end] = limb(shoulder, hand ? place(hand, t) : flip(REST.hand), UPPER_ARM, FOREARM + HAND, [sign * 0.5, -1, 0.25]);
    const share = FOREARM / (FOREARM + HAND);
    const wrist = elbow.map((v, i) => v + (end[i]! - v) * share) as Point;
    const hip = add(flip(REST.hip), hips);
    const [knee, ankle] = limb(hip, foot ? place(foot, t) : flip(REST.ankle), THIGH, SHIN, [sign * 0.1, 0, FORWARD]);
    return [shoulder, elbow, wrist, end, hip, knee, ankle, add(ankle, [sign, -8, -4])];
  };
  const left = side(-1, motion.left, motion.leftFoot);
  const right = side(1, motion.right, motion.rightFoot);
  const middle = [trunk(REST.head), trunk(REST.neck), trunk(REST.spine), hips];
  const all = [...middle, ...left.slice(0, 4), ...right.slice(0, 4), ...left.slice(4), ...right.slice(4)];
  return all.map(([x, y, z]) => [x / 100, y / 100, z / 100 + AWAY]);
}

/** Turn about the vertical, by an angle that brings the right side back when it is positive. */
function about([x, y, z]: readonly number[], turn: number): Point {
  return [x! * Math.cos(turn) - z! * Math.sin(turn), y!, z! * Math.cos(turn) + x! * Math.sin(turn)];
}

/** Return the middle joint and the end of a limb of two bones that reaches for a place; what is too far is reached for. */
function limb(from: Point, to: readonly number[], first: number, second: number, pole: Point): [Point, Point] {
  const way = to.map((v, i) => v - from[i]!) as Point;
  const far = Math.hypot(...way) || 1;
  const reach = Math.min(far, (first + second) * 0.995);
  const along = way.map((v) => v / far) as Point;
  const near = (first * first + reach * reach - second * second) / (2 * reach);
  const out = Math.sqrt(Math.max(0, first * first - near * near));
  const dot = pole[0] * along[0] + pole[1] * along[1] + pole[2] * along[2];
  const across = pole.map((v, i) => v - dot * along[i]!) as Point;
  const width = Math.hypot(...across) || 1;
  const middle = from.map((v, i) => v + along[i]! * near + (across[i]! / width) * out) as Point;
  return [middle, from.map((v, i) => v + along[i]! * reach) as Point];
}

function add(a: readonly number[], b: readonly number[]): Point {
  return [a[0]! + b[0]!, a[1]! + b[1]!, a[2]! + b[2]!];
}

function place(track: Track, t: number): Point {
  return [1, 2, 3].map((axis) => between(track, t, axis)) as Point;
}

function angle(turn: Turn, t: number): number {
  return (between(turn, t, 1) * Math.PI) / 180;
}

/** A cubic through the keys that does not swing beyond them (Fritsch and Carlson 1980, with harmonic means). */
function between(keys: readonly (readonly number[])[], t: number, axis: number): number {
  const last = keys.length - 1;
  if (t <= keys[0]![0]!) return keys[0]![axis]!;
  if (t >= keys[last]![0]!) return keys[last]![axis]!;
  let i = 0;
  while (t > keys[i + 1]![0]!) i++;
  const rise = (k: number) => (keys[k + 1]![axis]! - keys[k]![axis]!) / (keys[k + 1]![0]! - keys[k]![0]!);
  const slope = (k: number) => {
    if (k === 0 || k === last) return 0;
    const [a, b] = [rise(k - 1), rise(k)];
    return a * b <= 0 ? 0 : (2 * a * b) / (a + b);
  };
  const width = keys[i + 1]![0]! - keys[i]![0]!;
  const s = (t - keys[i]![0]!) / width;
  const [a, b] = [keys[i]![axis]!, keys[i + 1]![axis]!];
  return (
    a * (1 + 2 * s) * (1 - s) ** 2 + b * s * s * (3 - 2 * s) + width * (slope(i) * s * (1 - s) ** 2 - slope(i + 1) * s * s * (1 - s))
  );
}

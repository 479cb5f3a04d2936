/** What the server answers, as the user sees it. Each reader throws a TypeError where a message is not of its kind. */

import type { Body } from "./messages.js";

/** Every recurrent neuron after each time step: `values` [t][n] row by row, `shape` [t, n]. */
export interface Neurons {
  readonly values: Float32Array;
  readonly shape: readonly [number, number];
}

/**
 * A character and its log-probability in nats, null of one that was read as the symbol for unknown ones; `states` where neurons are watched
 * and the character is new.
 */
export interface Char {
  readonly char: string;
  readonly logprob: number | null;
  readonly states?: Neurons;
}

/** A class and its softmax score. */
export interface Label {
  readonly label: string;
  readonly score: number;
}

/** A motion that was told, once: `start` is the frame from which on it lasted, `at` the one at which it was told, both from 0. */
export interface MotionEvent {
  readonly label: string;
  readonly start: number;
  readonly at: number;
  readonly score: number;
}

/** The answer to a question; `sentence` is its place in what was sent, from 0. */
export interface QuestionAnswer {
  readonly sentence: number;
  readonly label: string;
  readonly score: number;
  readonly top: readonly Label[];
}

/**
 * The answer at the end of a clip, or of rows of numbers; `frames` as the client counts them. `events` of models that tell some. Of a model
 * of sentences the answer to the last question, with an empty label where nothing was asked; `answers` to all of them.
 */
export interface Prediction {
  readonly label: string;
  readonly score: number;
  readonly top: readonly Label[];
  readonly frames: number;
  readonly events?: readonly MotionEvent[];
  readonly answers?: readonly QuestionAnswer[];
}

/**
 * The answer to a step. `chars` and `next` of a model of characters, `predictions` of one of skeletons, `scores` [t][K] with `every`,
 * `states` where neurons are watched and the answer is no repeat.
 */
export interface Result {
  readonly step: number;
  readonly position: number;
  readonly chars: readonly Char[];
  readonly next: readonly Char[];
  readonly predictions: readonly Prediction[];
  readonly scores?: readonly (readonly number[])[];
  readonly states?: Neurons;
  /** values by name, of a model of numbers that answers those: the last row's, or each row's */
  readonly outputs?: Readonly<Record<string, unknown>>;
  /** the motions told in this step, of a session opened with `events` */
  readonly events: readonly MotionEvent[];
  /** what looks wrong with what was sent */
  readonly warnings: readonly string[];
  /** count and characters that were read as the model's unknown symbol, of a session opened with `unknown` */
  readonly replaced?: Readonly<Record<string, unknown>>;
}

/** A generate that was cut: its number, and the characters that are stored. */
export interface Pending {
  readonly step: number;
  readonly text: string;
}

/** A layer's stretch of the watched neurons. */
export interface Part {
  readonly layer: number;
  readonly size: number;
  readonly activation: string;
}

/** The place where a session stands; times as RFC 3339. kept: the steps that it can be rewound to; marks: named ones. */
export interface SessionInfo {
  readonly sessionId: string;
  readonly model: string;
  readonly version: string;
  readonly step: number;
  readonly position: number;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly keep: number;
  readonly kept?: readonly number[];
  readonly marks?: Readonly<Record<string, number>>;
  /** of the answer to a rewind: the step after which the session stands again */
  readonly rewoundTo?: number;
}

/** The answer to a predict: one prediction for each sequence; with a session, where that stands. */
export interface Predicted {
  readonly model: string;
  readonly version: string;
  readonly predictions: readonly Prediction[];
  readonly step?: number;
  readonly position?: number;
  readonly outputs?: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

/**
 * What an answer depends on: the weighted sum of logits after the last step, its exact gradient by everything that was read, gradient times
 * input, and in each step the share of relu neurons that are at 0. Shapes: frames [T][P][J][3] and [T][P][J], rows [T][F], characters [T].
 */
export interface Explained {
  readonly model: string;
  readonly version: string;
  readonly logit: number;
  readonly gradient: readonly unknown[];
  readonly relevance: readonly unknown[];
  readonly off: readonly number[];
  /** count and characters that were read as the model's unknown symbol, where it was asked for with `unknown` */
  readonly replaced?: Readonly<Record<string, unknown>>;
}

/** A served model, as GET /models tells of it: names as the server says them (openapi.yaml). */
export interface ModelInfo {
  readonly name: string;
  readonly [field: string]: unknown;
}

/** The answer to a completion, as OpenAI's API has it. */
export interface Completed {
  readonly model: string;
  readonly choices: readonly { readonly text: string; readonly index: number; readonly finish_reason: string | null }[];
  readonly usage?: Readonly<Record<string, number>>;
  readonly [field: string]: unknown;
}

/** Read the watched neurons of a message. */
export function neurons(body: Body): Neurons | undefined {
  if (!("states" in body)) return undefined;
  const [t, n] = list(body.shape).map((size) => number(size));
  const bytes = Uint8Array.from(atob(text(body.states)), (c) => c.charCodeAt(0));
  if (t === undefined || n === undefined || bytes.length !== 2 * t * n) throw new TypeError("states of another shape");
  const halves = new DataView(bytes.buffer);
  const table = halfTable();
  return { values: Float32Array.from({ length: t * n }, (_, i) => table[halves.getUint16(2 * i, true)] as number), shape: [t, n] };
}

/** Read an emitted character from a message. */
export function char(body: Body): Char {
  const states = neurons(body);
  const logprob = body.logprob === null ? null : number(body.logprob);
  return { char: text(body.char), logprob, ...(states && { states }) };
}

/** Read an event from a message or a list of them. */
export function event(body: Body): MotionEvent {
  return { label: text(body.label), start: number(body.start), at: number(body.at), score: number(body.score) };
}

/** Read a step's answer from a message. */
export function result(body: Body): Result {
  const states = neurons(body);
  return {
    step: number(body.step),
    position: number(body.position),
    chars: list(body.chars ?? []).map((c) => char(object(c))),
    next: list(body.next ?? []).map((c) => char(object(c))),
    predictions: list(body.predictions ?? []).map((p) => prediction(object(p))),
    events: [],
    warnings: list(body.warnings ?? []).map(text),
    ...(body.scores != null && { scores: list(body.scores).map((row) => list(row).map(number)) }),
    ...(states && { states }),
    ...(body.outputs != null && { outputs: object(body.outputs) }),
    ...(body.replaced != null && { replaced: object(body.replaced) }),
  };
}

/** Read the layers of the watched neurons from a message. */
export function parts(body: Body): Part[] {
  return list(body.parts).map((part) => {
    const { layer, size, activation } = object(part);
    return { layer: number(layer), size: number(size), activation: text(activation) };
  });
}

/** Read a generate that was cut, of an `opened`. */
export function pending(body: Body): Pending | undefined {
  return body.pending == null ? undefined : { step: number(object(body.pending).step), text: text(object(body.pending).text) };
}

/** Read a session as lists and looks show it. */
export function sessionInfo(body: Body): SessionInfo {
  return {
    sessionId: text(body.session_id),
    model: text(body.model),
    version: text(body.version),
    step: number(body.step),
    position: number(body.position),
    createdAt: text(body.created_at ?? ""),
    expiresAt: text(body.expires_at ?? ""),
    keep: number(body.keep ?? 0),
    ...(body.kept != null && { kept: list(body.kept).map(number) }),
    ...(body.marks != null && { marks: object(body.marks) as Record<string, number> }),
    ...(body.rewound_to != null && { rewoundTo: number(body.rewound_to) }),
  };
}

/** Read the answer to a predict from a response. */
export function predicted(body: Body): Predicted {
  const standing = body.session == null ? undefined : object(body.session);
  return {
    model: text(body.model),
    version: text(body.version),
    predictions: list(body.predictions ?? []).map((p) => prediction(object(p))),
    warnings: list(body.warnings ?? []).map(text),
    ...(standing && { step: number(standing.step), position: number(standing.position) }),
    ...(body.outputs != null && { outputs: object(body.outputs) }),
  };
}

/** Read what an answer depends on from a response. */
export function explained(body: Body): Explained {
  return {
    model: text(body.model),
    version: text(body.version),
    logit: number(body.logit),
    gradient: list(body.gradient),
    relevance: list(body.relevance),
    off: list(body.off).map(number),
    ...(body.replaced != null && { replaced: object(body.replaced) }),
  };
}

function prediction(body: Body): Prediction {
  return {
    label: text(body.label),
    score: number(body.score),
    top: labels(body.top),
    frames: number(body.frames ?? body.steps ?? 0),
    ...(body.events != null && { events: list(body.events).map((e) => event(object(e))) }),
    ...(body.answers != null && { answers: list(body.answers).map((a) => questionAnswer(object(a))) }),
  };
}

function questionAnswer(body: Body): QuestionAnswer {
  return { sentence: number(body.sentence), label: text(body.label), score: number(body.score), top: labels(body.top) };
}

function labels(top: unknown): Label[] {
  return list(top).map((t) => ({ label: text(object(t).label), score: number(object(t).score) }));
}

/** Return the value as a number. */
export function number(value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`a number was expected, not ${JSON.stringify(value)}`);
  return value;
}

/** Return the value as a text. */
export function text(value: unknown): string {
  if (typeof value !== "string") throw new TypeError(`a text was expected, not ${JSON.stringify(value)}`);
  return value;
}

/** Return the value as an object. */
export function object(value: unknown): Body {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError("an object was expected");
  return value as Body;
}

/** Return the value as a list. */
export function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError("a list was expected");
  return value as unknown[];
}

let halves: Float32Array | undefined;

/** Return the number of each of the 65,536 half-precision patterns: IEEE 754 binary16. */
function halfTable(): Float32Array {
  halves ??= Float32Array.from({ length: 65_536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
  return halves;
}

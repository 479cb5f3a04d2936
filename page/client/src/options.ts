/** The options of calls, by name. Null is the same as leaving an option out. Times are in seconds. */

import { type Body, given } from "./messages.js";

/** How frames are measured (docs/skeletons.md): order of joints, frames per second, what stands for a lost joint, unit, axes. */
export interface FrameOptions {
  layout?: string | null;
  hz?: number | null;
  lost?: string | null;
  unit?: string | null;
  axes?: string | null;
}

/**
 * The options of a session: how frames are measured, names told, scores of every time step, the model's version; states kept to be rewound
 * to; events told, of models that tell some; what is read for unknown characters.
 */
export interface SessionOptions extends FrameOptions {
  /** the id of a session to go on with */
  sessionId?: string | null;
  topK?: number | null;
  every?: boolean | null;
  version?: string | null;
  keep?: number | null;
  events?: boolean | null;
  unknown?: string | null;
  /** seconds that a call of this session may take, all tries included; the client's own where left out */
  timeout?: number | null;
  /** whether to connect again by itself where the connection is lost while nothing is asked; true where left out */
  reconnect?: boolean | null;
  /** told of what becomes of the connection */
  onLink?: ((link: Link) => void) | null;
}

/**
 * What the connection of a session is at: `connecting`, `open`, `waiting` to connect again (`cause` says why, `seconds` how long), `lost`
 * (`cause`; the next call connects), `closed` (by the user).
 */
export interface Link {
  readonly state: "connecting" | "open" | "waiting" | "lost" | "closed";
  readonly cause?: Error;
  readonly seconds?: number;
}

/** The options of every call of a session: its number, where somebody counts; its deadline; a signal to leave it. */
export interface CallOptions {
  number?: number | null;
  timeout?: number | null;
  signal?: AbortSignal | null;
}

/** The options of a step: those of every call, and of frames that come unevenly the seconds, rising, at which each was taken. */
export interface StepOptions extends CallOptions {
  t?: readonly number[] | null;
}

/** The options of a generate: its longest, how it draws, and the texts that end it. Its timeout is for the next character. */
export interface GenerateOptions extends CallOptions {
  maxChars?: number | null;
  temperature?: number | null;
  topP?: number | null;
  seed?: number | null;
  stop?: readonly string[] | null;
}

/**
 * The options of `predict`: the model, how frames are measured, names told; the session and the step's number; the seconds at which each
 * frame was taken.
 */
export interface PredictOptions extends FrameOptions {
  model?: string | null;
  topK?: number | null;
  sessionId?: string | null;
  step?: number | null;
  t?: readonly (number | readonly number[])[] | null;
  timeout?: number | null;
}

/**
 * The options of `explain`: the model and its version; a label against the mean of the others, or in its place a weight for each logit; how
 * frames are measured; what is read for unknown characters.
 */
export interface ExplainOptions extends FrameOptions {
  model?: string | null;
  version?: string | null;
  label?: string | null;
  weights?: readonly number[] | null;
  unknown?: string | null;
  timeout?: number | null;
}

/** The options of `complete`, as OpenAI's API names them (docs/completions.md); without `stream`. */
export interface CompleteOptions {
  model: string;
  prompt: string | readonly string[];
  max_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  seed?: number | null;
  stop?: string | readonly string[] | null;
  n?: number | null;
  echo?: boolean | null;
  logprobs?: number | null;
  timeout?: number | null;
}

/**
 * A step's content: a text, sentences, frames [T][J][3] or [T][P][J][3] (null for a joint not seen), or numbers: rows [T][F], or the samples
 * [T] of a signal, which a last null ends.
 */
export type Content = string | ArrayLike<unknown>;

const FRAMES = ["layout", "hz", "lost", "unit", "axes"];
const SESSION = [...FRAMES, "topK", "every", "version", "keep", "events", "unknown"];
const GENERATE = ["maxChars", "temperature", "topP", "seed", "stop"];
const PREDICT = [...FRAMES, "model", "topK", "t"];
const EXPLAIN = [...FRAMES, "model", "version", "label", "weights", "unknown"];
const OF_SHELL = ["sessionId", "timeout", "reconnect", "onLink", "number", "signal", "step"];

/** Return the fields of `open`. */
export function opening(options: SessionOptions): Body {
  return chosen(options, SESSION);
}

/** Return the fields of `generate`. */
export function wish(options: GenerateOptions): Body {
  return chosen(options, GENERATE);
}

/** Return the fields of a predict. */
export function predicting(options: PredictOptions): Body {
  return { ...chosen(options, PREDICT), ...given({ session_id: options.sessionId, step: options.step }) };
}

/** Return the fields of an explain. */
export function explaining(options: ExplainOptions): Body {
  return chosen(options, EXPLAIN);
}

/**
 * Return a step's content as the field of its modality. A null by itself, or a row of it, is the end of a signal (docs/adopt.md); lists of
 * several are joints that nobody saw.
 */
export function contentOf(content: Content): Body {
  if (typeof content === "string") return { text: content };
  const first = content.length ? content[0] : undefined;
  if (typeof first === "string") return { sentences: content };
  const depth = depthOf(content);
  const ends = content.length === 1 && (first === null || (isList(first) && first.length === 1 && first[0] === null));
  return depth === 1 || depth === 2 || (depth === undefined && ends) ? { values: content } : { frames: content };
}

/** Return how many lists the first number lies in; undefined where there is none. */
function depthOf(content: unknown): number | undefined {
  if (!isList(content)) return content === null || content === undefined ? undefined : 0;
  for (let i = 0; i < content.length; i++) {
    const depth = depthOf(content[i]);
    if (depth !== undefined) return depth + 1;
  }
  return undefined;
}

function isList(content: unknown): content is ArrayLike<unknown> {
  return Array.isArray(content) || (ArrayBuffer.isView(content) && !(content instanceof DataView));
}

/** Return the options that are not null, as the server names them. Throws TypeError for a name that is none. */
function chosen(options: object, names: readonly string[]): Body {
  const body: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (names.includes(name)) {
      if (value !== undefined && value !== null) body[name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)] = value;
    } else if (!OF_SHELL.includes(name)) {
      throw new TypeError(`got an unexpected option ${JSON.stringify(name)}, expected one of ${names.join(", ")}`);
    }
  }
  return body;
}

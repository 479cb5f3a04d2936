/** The HTTP calls, without any I/O: what to send, what to make of the answer, and when to try again. */

import { explained, type Explained, list, object, predicted, type Predicted, sessionInfo, type SessionInfo, type Completed, type ModelInfo } from "./answers.js";
import { HttpResponse, Lost, type Plan } from "./commands.js";
import { BadInput, ConnectionLost, ProtocolError, Refused, refused, SessionExpired, TRANSIENT, Unavailable } from "./errors.js";
import { type Body, decode, encode } from "./messages.js";
import type { Patience } from "./patience.js";

const JSON_BODY = { "content-type": "application/json" };
const BYTES = { "content-type": "application/octet-stream" };
const GATEWAY = [502, 504]; // whoever stands between could not reach the server

/** The parts of a request that not every request has. */
export interface Asked {
  readonly content?: string | Uint8Array | undefined;
  /** whether to try again also where the server may have seen it before */
  readonly again?: boolean;
  /** counts the tries */
  readonly tries?: { count: number };
}

/** Classify. A step of a session without a number is not tried again once the server may have seen it. */
export function* predict(sequences: readonly unknown[], options: Body, patience: Patience): Plan<Predicted> {
  const again = !("session_id" in options) || "step" in options;
  const answer = yield* ask("POST", "/predict", patience, { content: encode({ sequences, ...options }), again });
  return read(predicted, answer);
}

/** Tell what an answer depends on. Nothing is kept, so it may be repeated. */
export function* explain(sequence: unknown, options: Body, patience: Patience): Plan<Explained> {
  return read(explained, yield* ask("POST", "/explain", patience, { content: encode({ sequence, ...options }) }));
}

/** Return every served model, as GET /models tells. */
export function* models(patience: Patience): Plan<readonly ModelInfo[]> {
  return read((body) => list(body.models).map((m) => object(m) as ModelInfo), yield* ask("GET", "/models", patience));
}

/** Return the ONNX file of a model's version, the highest where none is named. */
export function* graph(model: string, version: string | undefined, patience: Patience): Plan<Uint8Array> {
  const asked = version === undefined ? "" : `?version=${encodeURIComponent(version)}`;
  return (yield* ask("GET", `/models/${encodeURIComponent(model)}/graph${asked}`, patience)).content;
}

/** Open a session. A try whose answer was lost may leave one that nobody knows; it expires. */
export function* newSession(model: string, patience: Patience, keep = 0): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("POST", "/sessions", patience, { content: encode(keep ? { model, keep } : { model }) }));
}

/** Open a session where a downloaded state stood. */
export function* newSessionAt(state: Uint8Array, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("POST", "/sessions", patience, { content: state }));
}

/** Return one's own sessions, newest first. */
export function* sessions(limit: number, patience: Patience): Plan<SessionInfo[]> {
  const answer = yield* ask("GET", `/sessions?limit=${encodeURIComponent(limit)}`, patience);
  return read((body) => list(body.sessions).map((s) => sessionInfo(object(s))), answer);
}

/** Return where a session stands. */
export function* look(sessionId: string, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("GET", pathOf(sessionId), patience));
}

/** End a session. Gone at a second try means that the first has done it. */
export function* remove(sessionId: string, patience: Patience): Plan<void> {
  const tries = { count: 0 };
  try {
    yield* ask("DELETE", pathOf(sessionId), patience, { tries });
  } catch (error) {
    if (!(error instanceof SessionExpired) || tries.count === 1) throw error;
  }
}

/** Return the session's state as a file. */
export function* download(sessionId: string, patience: Patience): Plan<Uint8Array> {
  return (yield* ask("GET", pathOf(sessionId, "/state"), patience)).content;
}

/** Put a downloaded state in place of the session's. */
export function* upload(sessionId: string, state: Uint8Array, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("PUT", pathOf(sessionId, "/state"), patience, { content: state }));
}

/** Open a second session that stands where this one does. A try whose answer was lost may leave one that nobody knows; it expires. */
export function* fork(sessionId: string, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("POST", pathOf(sessionId, "/fork"), patience));
}

/** Put the session back at the start. */
export function* reset(sessionId: string, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("POST", pathOf(sessionId, "/reset"), patience));
}

/** Go back to a step or a mark. One without a number is not tried again once the server may have seen it. */
export function* rewind(sessionId: string, to: Body, number: number | undefined, patience: Patience): Plan<SessionInfo> {
  const content = encode(number === undefined ? to : { ...to, number });
  return read(sessionInfo, yield* ask("POST", pathOf(sessionId, "/rewind"), patience, { content, again: number !== undefined }));
}

/** Name the step where the session stands, or take the name away. */
export function* mark(sessionId: string, name: string, taken: boolean, patience: Patience): Plan<SessionInfo> {
  return read(sessionInfo, yield* ask("POST", pathOf(sessionId, "/mark"), patience, { content: encode({ mark: name, remove: taken }) }));
}

/** Complete a prompt, as OpenAI's API has it. Nothing is kept between two of them, so it may be repeated. */
export function* complete(options: Body, patience: Patience): Plan<Completed> {
  return read((body) => body as unknown as Completed, yield* ask("POST", "/v1/completions", patience, { content: encode(options) }));
}

/** Make one request until it is answered. Throws Refused, ConnectionLost, DeadlineExceeded. */
export function* ask(method: string, path: string, patience: Patience, asked: Asked = {}): Plan<HttpResponse> {
  const { content, again = true, tries } = asked;
  const headers = content === undefined ? {} : typeof content === "string" ? JSON_BODY : BYTES;
  for (;;) {
    if (tries) tries.count += 1;
    const outcome = yield { kind: "http", method, path, headers, content, timeout: patience.left() };
    let cause: Error;
    let pause = 0;
    if (outcome instanceof HttpResponse) {
      if (outcome.status < 400) return outcome;
      const error = refusal(outcome);
      const later = TRANSIENT.has(error.code) || error instanceof Unavailable || (again && GATEWAY.includes(outcome.status));
      if (!later) throw error;
      cause = error;
      pause = retryAfter(outcome);
    } else {
      if (!(outcome instanceof Lost)) throw new TypeError("an http command is answered with HttpResponse or Lost");
      if (outcome.final) throw outcome.cause;
      cause = outcome.cause;
      if (outcome.sent && !again) {
        throw new ConnectionLost(`it is not known whether the step was applied: ${cause.message}`, { code: "lost", cause });
      }
    }
    yield { kind: "sleep", seconds: patience.pause(cause, pause), cause };
  }
}

function read<R>(reader: (body: Body) => R, answer: HttpResponse): R {
  try {
    return reader(decode(answer.text()));
  } catch (error) {
    if (error instanceof TypeError) throw new ProtocolError(`expected another answer: ${error.message}`, { cause: error });
    throw error;
  }
}

function refusal(answer: HttpResponse): Refused {
  const { status } = answer;
  let body: Body = {};
  try {
    body = decode(answer.text());
  } catch {
    // a proxy's page
  }
  if ("code" in body) return refused(body, status);
  if (typeof body.error === "object" && body.error !== null) {
    const { message, code, param } = body.error as Record<string, unknown>; // OpenAI's shape
    return refused({ detail: message, code, field: param }, status);
  }
  const kind = status === 429 || status === 503 ? Unavailable : Refused;
  return new kind(`HTTP ${status}, and no reason was given`, { code: `http_${status}`, status });
}

function retryAfter(answer: HttpResponse): number {
  const said = answer.headers["retry-after"] ?? "";
  return /^\d+$/.test(said) ? Number(said) : 0;
}

function pathOf(sessionId: string, rest = ""): string {
  if (!sessionId) throw new BadInput("expected a session's id, got an empty text", { code: "invalid_input", field: "session_id" });
  return `/sessions/${encodeURIComponent(sessionId)}${rest}`;
}

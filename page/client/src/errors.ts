/**
 * Every error of this client, in one tree: the Python client's.
 *
 *     ClientError
 *     ├── Refused            the server answered an error; `code` is its word for it (openapi.yaml), `detail` says what was expected
 *     │   ├── BadInput       a field is not what it should be (`field` is its JSON path); also what cannot be said in JSON
 *     │   ├── Unauthorized   no key, or one that is not known there
 *     │   ├── NotFound       no such model, session or route
 *     │   ├── SessionExpired the session was there, and is no more
 *     │   ├── Conflict       the request does not fit where the session stands
 *     │   │   ├── StepConflict   another client took this number with other content
 *     │   │   └── StepGap        another client moved the session (`expectedStep`)
 *     │   ├── SessionLimit   the key has as many living sessions as it may
 *     │   └── Unavailable    overloaded, stopping or over a rate: tried again, and so met as the cause of DeadlineExceeded
 *     ├── DeadlineExceeded   no answer in time. The step may have been applied or not: the same call again repeats its number
 *     ├── ConnectionLost     in the middle of a step without a number (`predict`): it may have been applied or not
 *     ├── Unanswered         an earlier step has no answer yet, and this is another one
 *     └── ProtocolError      the server said what this client does not understand, or is no such server
 */

/** What an error tells besides its text. */
export interface ErrorFields {
  code?: string;
  field?: string | undefined;
  expectedStep?: number | undefined;
  status?: number | undefined;
  cause?: unknown;
}

/** Base of all. `code` is for programs, `detail` for people; `field`, `expectedStep` and `status` (of HTTP) where there is one. */
export class ClientError extends Error {
  readonly code: string;
  readonly detail: string;
  readonly field: string | undefined;
  readonly expectedStep: number | undefined;
  readonly status: number | undefined;

  constructor(detail: string, fields: ErrorFields = {}) {
    super(fields.field ? `${fields.field}: ${detail}` : detail, "cause" in fields ? { cause: fields.cause } : undefined);
    this.name = new.target.name;
    this.code = fields.code ?? "";
    this.detail = detail;
    this.field = fields.field;
    this.expectedStep = fields.expectedStep;
    this.status = fields.status;
  }
}

/** The server answered an error; nothing has moved. */
export class Refused extends ClientError {}
/** A field is not what it should be. */
export class BadInput extends Refused {}
/** No key, or one that is not known. */
export class Unauthorized extends Refused {}
/** There is nothing by that name. */
export class NotFound extends Refused {}
/** The session has expired or was deleted. */
export class SessionExpired extends Refused {}
/** The request does not fit where the session stands. */
export class Conflict extends Refused {}
/** This number was taken before, with other content. */
export class StepConflict extends Conflict {}
/** Neither the session's last number nor the next. */
export class StepGap extends Conflict {}
/** The key has as many living sessions as it may. */
export class SessionLimit extends Refused {}
/** The server cannot do it now. */
export class Unavailable extends Refused {}
/** No answer in time; `cause` is what stood in the way last. */
export class DeadlineExceeded extends ClientError {}
/** Nobody knows whether the step was applied, and without a number it cannot be repeated. */
export class ConnectionLost extends ClientError {}
/** An earlier step has no answer yet. */
export class Unanswered extends ClientError {}
/** The server does not speak this protocol. */
export class ProtocolError extends ClientError {}

/** Codes after which the same request, a little later, may succeed; nothing has moved. */
export const TRANSIENT: ReadonlySet<string> = new Set(["overloaded", "stopping", "not_ready", "store_failed", "rate_limited"]);

const KINDS: Readonly<Record<string, typeof Refused>> = {
  unauthorized: Unauthorized,
  forbidden_origin: Unauthorized,
  not_found: NotFound,
  unknown_model: NotFound,
  unknown_session: NotFound,
  session_expired: SessionExpired,
  step_conflict: StepConflict,
  step_gap: StepGap,
  no_stored_reply: Conflict,
  model_gone: Conflict,
  not_kept: Conflict,
  mark_limit: Conflict,
  cancelled: Conflict,
  position_limit: Conflict,
  session_limit: SessionLimit,
  ...Object.fromEntries([...TRANSIENT].map((code) => [code, Unavailable])),
  ...Object.fromEntries(
    ["invalid_input", "not_finite", "out_of_range", "overflow", "out_of_alphabet", "not_json", "too_large"].map((code) => [code, BadInput]),
  ),
  ...Object.fromEntries(["not_a_state", "other_model", "unsupported_encoding"].map((code) => [code, BadInput])),
};

/** Return the error that a problem document or a stream's error message tells of. */
export function refused(body: Readonly<Record<string, unknown>>, status?: number): Refused {
  const code = typeof body.code === "string" ? body.code : "";
  const kind = Object.hasOwn(KINDS, code) ? KINDS[code] : undefined;
  const said = [body.detail, body.title].find((text) => typeof text === "string" && text !== "");
  return new (kind ?? Refused)((said as string | undefined) ?? "no detail was given", {
    code,
    field: typeof body.field === "string" ? body.field : undefined,
    expectedStep: Number.isInteger(body.expected_step) ? (body.expected_step as number) : undefined,
    status,
  });
}

/** JSON as it goes over the wire, and its errors as this client's. */

import { BadInput, ProtocolError } from "./errors.js";

/** A message or document, as it was parsed. */
export type Body = Readonly<Record<string, unknown>>;

/** Return a message as text; typed arrays as lists. Throws BadInput for what JSON does not know: JSON.stringify would write null for NaN. */
export function encode(message: Body): string {
  try {
    return JSON.stringify(plain(message));
  } catch (error) {
    if (!(error instanceof Unsayable)) throw error;
    throw new BadInput(error.message, { code: error.code, field: error.place.slice(1) });
  }
}

/** Read an object from a text. Throws ProtocolError. */
export function decode(raw: string): Body {
  let body: unknown;
  try {
    body = JSON.parse(raw);
  } catch {
    body = undefined;
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new ProtocolError(`expected a JSON object, got ${JSON.stringify(raw.slice(0, 80))}`);
  }
  return body as Body;
}

/** Return the fields that are neither undefined nor null. */
export function given(fields: Body): Body {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

/** A value that JSON does not know, and its place. */
class Unsayable extends Error {
  place = "";

  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }
}

function plain(value: unknown): unknown {
  if (typeof value === "number") {
    if (Number.isFinite(value)) return value;
    throw new Unsayable(`expected finite numbers (null for a joint not seen), got ${value}`, "not_finite");
  }
  if (typeof value === "string" || typeof value === "boolean" || value === null) return value;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return plain(Array.from(value as unknown as ArrayLike<unknown>));
  if (Array.isArray(value)) return value.map((item, i) => placed(item, () => `[${i}]`));
  if (typeof value === "object" && Object.prototype.toString.call(value) === "[object Object]") {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(entries.map(([name, item]) => [name, placed(item, () => `.${name}`)]));
  }
  throw new Unsayable(`expected numbers, lists and texts, got ${typeof value === "object" ? value.constructor.name : typeof value}`, "invalid_input");
}

function placed(item: unknown, place: () => string): unknown {
  if (typeof item === "number" && Number.isFinite(item)) return item;
  try {
    return plain(item);
  } catch (error) {
    if (error instanceof Unsayable) error.place = place() + error.place;
    throw error;
  }
}

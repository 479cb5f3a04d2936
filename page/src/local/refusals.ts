/** What the browser cannot do in the service's place, and what both do alike. */

import type { Model, Version } from "../service.ts";
import type { StateFile } from "./state_file.ts";

/** Something is for the service alone; the message says what. */
export class NotHere extends Error {}

/** Return the served version that a state is of. Throws where that is not served any more, or with another graph than the state's. */
export function versionOf(model: Model, { metadata }: StateFile): Version {
  const { model: name, version, digest } = metadata;
  const found = name === model.name ? model.versions.find((v) => v.version === version) : undefined;
  if (found === undefined) {
    const served = model.versions.map((v) => v.version).join(", ");
    throw new NotHere(`The session is of ${name} ${version}, which is not served any more: expected ${model.name} ${served}.`);
  }
  needGraph(`${name} ${version}`, digest, found.digest);
  return found;
}

/** Throw where a graph is not the one of a state; digest: what its sha256 ought to be. */
export function needGraph(title: string, digest: string | undefined, got: string): void {
  if (digest === got) return;
  const short = (text = "") => `${text.slice(0, 8)}…`;
  throw new NotHere(`The service has another file of ${title} than the session's state is of: expected sha256 ${short(digest)}, got ${short(got)}.`);
}

/** Throw where a sequence would be longer than its model was made for; null is as long as one likes. */
export function needRoom(position: number, most: number | null): void {
  if (most !== null && position > most) throw new NotHere(`The model was made for ${most} steps in a sequence, and this would be ${position}.`);
}

/** Return scores, which add up to 1. */
export function softmax(logits: Float32Array): number[] {
  const most = Math.max(...logits);
  const odds = Array.from(logits, (v) => Math.exp(v - most));
  const sum = odds.reduce((a, b) => a + b, 0);
  return odds.map((v) => v / sum);
}

/**
 * What the core asks its shell to do, and what it is told of it. The core itself touches no socket and no clock of its own.
 *
 * A plan is a generator: it yields commands and is sent their outcomes; what it returns is the answer to the user's call. Outcomes: nothing
 * for connect, send, sleep, close and show, the message for receive, an HttpResponse for http; or Lost for any of them. Times are in seconds.
 */

import type { Char } from "./answers.js";

export type Command =
  /** Open the WebSocket; an earlier one is dropped. */
  | { readonly kind: "connect"; readonly url: string; readonly timeout: number }
  /** Send a message over the WebSocket. */
  | { readonly kind: "send"; readonly text: string; readonly timeout: number }
  /** Wait for a message. */
  | { readonly kind: "receive"; readonly timeout: number }
  /** Drop the open WebSocket. */
  | { readonly kind: "close" }
  /** Wait for some time, because of the cause. */
  | { readonly kind: "sleep"; readonly seconds: number; readonly cause: Error }
  /** Hand a character to the user. */
  | { readonly kind: "show"; readonly char: Char }
  | HttpRequest;

/** An HTTP request; `path` begins behind the server's address. */
export interface HttpRequest {
  readonly kind: "http";
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly content: string | Uint8Array | undefined;
  readonly timeout: number;
}

/** An HTTP response; names of headers in lower case. */
export class HttpResponse {
  constructor(
    readonly status: number,
    readonly headers: Readonly<Record<string, string>>,
    readonly content: Uint8Array,
  ) {}

  /** Return the content as a text. */
  text(): string {
    return new TextDecoder().decode(this.content);
  }
}

/** A command failed. `final`: trying again would fail as well. `sent`: the server may have seen the request. */
export class Lost {
  constructor(
    readonly cause: Error,
    readonly final = false,
    readonly sent = true,
  ) {}
}

export type Outcome = undefined | string | HttpResponse | Lost;
export type Plan<R> = Generator<Command, R, Outcome>;

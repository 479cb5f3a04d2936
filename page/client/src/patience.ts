/** How long a call may take, and how long to wait before it is tried again. Times are in seconds. */

import { DeadlineExceeded } from "./errors.js";

const FIRST_PAUSE = 0.05; // a server that restarts is back after about 700 ms
const LONGEST_PAUSE = 2;
const GROWTH = 2;

/**
 * `seconds` until the deadline. Pauses grow from the first to the longest, each shortened by chance, so that clients do not come back all at
 * once. `clock` tells seconds, `random` draws from 0 to 1.
 */
export class Patience {
  readonly #seconds: number;
  readonly #clock: () => number;
  readonly #random: () => number;
  #tries = 0;
  #cause: Error | undefined;
  #deadline: number;

  constructor(seconds: number, clock: () => number, random: () => number) {
    this.#seconds = seconds;
    this.#clock = clock;
    this.#random = random;
    this.#deadline = clock() + seconds;
  }

  /** Return the seconds to the deadline. Throws DeadlineExceeded with what the last pause was for as its cause. */
  left(): number {
    const left = this.#deadline - this.#clock();
    if (left <= 0) {
      const why = this.#cause ? `: ${this.#cause.message}` : "";
      throw new DeadlineExceeded(`no answer within ${this.#seconds} s${why}`, { code: "deadline", cause: this.#cause });
    }
    return left;
  }

  /** Return the seconds to wait before the next try, at most to the deadline. Throws DeadlineExceeded once that has passed. */
  pause(cause: Error, atLeast = 0): number {
    const longest = Math.min(FIRST_PAUSE * GROWTH ** Math.min(this.#tries, 30), LONGEST_PAUSE);
    this.#tries += 1;
    const pause = Math.max(atLeast, longest * (0.5 + 0.5 * this.#random()));
    this.#cause = cause;
    return Math.min(pause, this.left());
  }

  /** Begin the deadline and the pauses anew: something has come. */
  renew(): void {
    this.#tries = 0;
    this.#cause = undefined;
    this.#deadline = this.#clock() + this.#seconds;
  }
}

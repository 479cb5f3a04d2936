/** Explanations as the service gives them (POST /explain), one at a time: a new question takes the place of the one before. */
import { Observable } from "../observable.ts";
import { explain, type Explained, type ExplainRequest } from "../service.ts";

export class Explaining<T> {
  error: unknown = null;
  busy = false;
  found: T | null = null;
  readonly changed = new Observable(0);
  private asked: AbortController | null = null;

  /** Ask, and keep what `read` makes of the answer. Whoever asked before is given up, on the service too. */
  async ask(request: ExplainRequest, read: (told: Explained) => T): Promise<void> {
    this.leave();
    const asked = new AbortController();
    this.asked = asked;
    this.busy = true;
    this.error = null;
    this.tell();
    try {
      const told = await explain(request, asked.signal);
      if (this.asked === asked) this.found = read(told);
    } catch (error) {
      if (this.asked === asked) this.error = error;
    }
    if (this.asked === asked) this.busy = false;
    this.tell();
  }

  /** Forget what was asked and found. */
  leave(): void {
    this.asked?.abort();
    this.asked = null;
    this.busy = false;
    this.found = null;
    this.error = null;
    this.tell();
  }

  private tell(): void {
    this.changed.set(this.changed.value + 1);
  }
}

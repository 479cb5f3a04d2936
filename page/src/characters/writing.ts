/** A text that a session reads and writes, with what the model thought of each character. */
import type { GenerateOptions, Neurons, Result } from "../../client/src/index.ts";
import { Session } from "../connection.ts";
import { newest } from "../desk.ts";
import { LocalReader, seeded, type Read } from "../local/reader.ts";
import { Observable } from "../observable.ts";
import { ServiceError, download, fork, model as describe, remove, type Model, type SessionInfo, type Version } from "../service.ts";
import { likeliest, pieces, type Guess } from "./surprise.ts";

/** One character of the text. */
export interface Sign {
  char: string;
  /** null where the model's alphabet lacks the character, and its symbol for unknown ones was read */
  logprob: number | null;
  drawn: boolean;
  /** the likeliest characters at this place; null where nobody asked */
  expected: Guess[] | null;
}

const GUESSES = 6;
const TYPED = 500; // characters a message; `every` gives scores for at most 1,024
const WATCHED = 64; // characters a message while neurons are watched

export class Writing {
  signs: Sign[] = [];
  next: Guess[] | null = null;
  error: unknown = null;
  note: string | null = null;
  /** characters that were read before this page opened the session */
  before = 0;
  generating = false;
  /** between the server and the browser */
  moving = false;
  /** counts the changes; views follow it */
  readonly changed = new Observable(0);
  onNeurons: ((neurons: Neurons, first: number) => void) | null = null;
  readonly session: Session;
  /** where the text is read in the browser itself: by whom, and after which step the server's session was left */
  local: { reader: LocalReader; left: number } | null = null;
  readonly version: Version;
  private readonly alphabet: readonly string[];
  private readonly stood: number;
  private turn: Promise<void> = Promise.resolve();
  /** what is to be read, the piece under way included */
  private typed = "";
  private waiting = 0;
  private closed = false;

  constructor(
    readonly model: Model,
    at: SessionInfo | null = null,
    readonly watched = false,
  ) {
    const version = at === null ? newest(model) : (model.versions.find((v) => v.version === at.version) ?? newest(model));
    this.version = version;
    this.alphabet = version.alphabet ?? [];
    const unknown = version.unknown === null ? {} : { unknown: "replace" };
    this.session = new Session(model.name, { every: true, topK: GUESSES, ...unknown }, at?.session_id ?? null);
    this.before = at?.position ?? 0;
    this.stood = at?.step ?? 0;
  }

  /** The number of the last step. */
  get step(): number {
    return this.local?.reader.step ?? Math.max(this.stood, this.session.number);
  }

  /** Whether this was closed. */
  get left(): boolean {
    return this.closed;
  }

  get busy(): boolean {
    return this.waiting > 0;
  }

  /** Have the session read a text. What is typed while another step is under way goes into one step behind it. */
  async type(text: string): Promise<void> {
    if (this.generating) this.stop();
    this.typed += text;
    if (this.typed !== text) return;
    await this.attempt(async () => {
      if (this.local !== null) {
        const read = this.typed;
        this.typed = "";
        for (const one of await this.local.reader.read(read)) this.put(one, false);
        this.ahead();
        return;
      }
      if (this.watched && this.session.parts.length === 0) await this.session.watch();
      while (this.typed !== "") {
        const piece = pieces(this.typed, this.watched ? WATCHED : TYPED)[0]!;
        try {
          this.take(await this.session.feed(piece), Array.from(piece));
        } catch (error) {
          this.typed = "";
          throw error;
        }
        this.typed = this.typed.slice(piece.length);
      }
    });
  }

  /** Have the model go on by itself. */
  async generate(wish: GenerateOptions): Promise<void> {
    if (this.generating) return;
    this.generating = true;
    await this.attempt(async () => {
      if (this.local !== null) {
        await this.drawHere(this.local.reader, wish);
        return;
      }
      if (this.watched && this.session.parts.length === 0) await this.session.watch();
      const reader = await fork(await this.session.open());
      const first = this.signs.length;
      const before = this.next;
      try {
        for await (const drawn of this.session.generate(wish)) {
          this.signs.push({ char: drawn.char, logprob: drawn.logprob, drawn: true, expected: null });
          this.next = null;
          if (drawn.states) this.onNeurons?.(drawn.states, this.signs.length - 1);
          this.tell();
        }
      } finally {
        this.generating = false;
        this.tell();
        await this.readAgain(reader, first, before);
      }
    });
    this.generating = false;
    this.tell();
  }

  stop(): void {
    if (this.local !== null) this.generating = false;
    else this.session.cancel();
  }

  /** Take the state down and go on in the browser, without the server. */
  goHere(): Promise<void> {
    return this.move(async () => {
      if (this.local !== null) return;
      const { state } = await download(await this.session.open());
      const reader = await LocalReader.of(await describe(this.model.name), await state.arrayBuffer());
      this.local = { reader, left: reader.step };
      this.ahead();
    });
  }

  /** Put the state back on the server, and go on there. Waits for the connection; what was read here is not lost meanwhile. */
  goBack(): Promise<void> {
    return this.move(async () => {
      if (this.local === null) return;
      if (this.local.reader.step !== this.local.left) await this.session.replace(this.local.reader.write(), this.local.left);
      this.local = null;
    });
  }

  private async move(act: () => Promise<void>): Promise<void> {
    this.moving = true;
    await this.attempt(act);
    this.moving = false;
    this.tell();
  }

  private async drawHere(reader: LocalReader, wish: GenerateOptions): Promise<void> {
    const random = typeof wish.seed === "number" ? seeded(wish.seed) : Math.random;
    const drawing = { temperature: wish.temperature ?? 1, topP: wish.topP ?? 1, random };
    for await (const drawn of reader.draw(wish.maxChars ?? 200, drawing, () => this.generating)) {
      this.put(drawn, true);
      this.ahead();
      await new Promise((done) => setTimeout(done)); // the page is drawn, and Stop is heard
    }
  }

  private put({ char, logprob, scores }: Read, drawn: boolean): void {
    this.signs.push({ char, logprob, drawn, expected: likeliest(scores.map(Math.exp), this.alphabet, GUESSES) });
  }

  private ahead(): void {
    if (this.local !== null) this.next = likeliest(this.local.reader.next.map(Math.exp), this.alphabet, GUESSES);
    this.tell();
  }

  /** Return a second writing that stands where this one does, after what is under way. Throws where this was closed meanwhile. */
  fork(): Promise<Writing> {
    const made = this.turn.then(async () => {
      const twin = new Writing(this.model, await fork(await this.session.open()), this.watched);
      if (this.closed) {
        twin.close(true);
        throw new ServiceError("closed", "The session was closed.");
      }
      twin.signs = this.signs.slice();
      twin.next = this.next;
      twin.before = this.before;
      return twin;
    });
    this.turn = made.then(
      () => undefined,
      () => undefined,
    );
    return made;
  }

  async save(): Promise<{ name: string; state: Blob }> {
    return download(await this.session.open());
  }

  /** Leave the session; `forget` deletes it on the server too. */
  close(forget: boolean): void {
    this.closed = true;
    if (forget) this.session.forget();
    else this.session.close();
  }

  clearError(): void {
    this.error = null;
    this.tell();
  }

  /** A fork from before the generate reads what was drawn, and so tells what was expected at each place. */
  private async readAgain(reader: SessionInfo, first: number, before: Guess[] | null): Promise<void> {
    const session = new Session(this.model.name, { every: true, topK: GUESSES }, reader.session_id);
    try {
      const text = this.signs.slice(first).map((sign) => sign.char).join("");
      let guess = before;
      let at = first;
      for (const piece of pieces(text, TYPED)) {
        const result = await session.feed(piece);
        for (const scores of result.scores ?? []) {
          if (guess !== null) this.signs[at]!.expected = guess;
          guess = likeliest(scores, this.alphabet, GUESSES);
          at++;
        }
      }
      if (at === this.signs.length) this.next = guess;
    } catch {
      // what was expected stays untold; the text itself is whole
    } finally {
      session.close();
      remove(reader.session_id).catch(() => undefined);
      this.tell();
    }
  }

  private take(result: Result, read: readonly string[]): void {
    const first = this.signs.length;
    let guess = this.next;
    result.chars.forEach((char, i) => {
      this.signs.push({ char: read[i] ?? char.char, logprob: char.logprob, drawn: false, expected: guess });
      const scores = result.scores?.[i];
      guess = scores === undefined ? null : likeliest(scores, this.alphabet, GUESSES);
    });
    this.next = result.next.length > 0 ? result.next.map((n) => ({ char: n.char, p: Math.exp(n.logprob ?? -Infinity) })) : guess;
    if (result.warnings.length > 0) this.note = result.warnings.join(" ");
    if (result.states) this.onNeurons?.(result.states, first);
    this.tell();
  }

  /** Do one thing after another, in the order they were asked for. */
  private attempt(act: () => Promise<void>): Promise<void> {
    this.waiting++;
    this.turn = this.turn.then(() => this.perform(act));
    return this.turn;
  }

  private async perform(act: () => Promise<void>): Promise<void> {
    this.error = null;
    this.tell();
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ServiceError && error.code === "closed")) this.error = error;
    } finally {
      this.waiting--;
      this.tell();
    }
  }

  private tell(): void {
    this.changed.set(this.changed.value + 1);
  }
}

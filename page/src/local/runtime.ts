/** ONNX Runtime in the browser, a part of `make page-full`: loaded when it is asked for, from this service alone. */
import { address, graph, type Version } from "../service.ts";
import { needGraph } from "./refusals.ts";

interface Tensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

interface Runtime {
  env: { wasm: { wasmPaths: string; numThreads: number } };
  Tensor: new (type: string, data: Float32Array | BigInt64Array, dims: readonly number[]) => Tensor;
  InferenceSession: { create: (file: Uint8Array, options: object) => Promise<Running> };
}

interface Running {
  readonly inputMetadata: readonly { name: string; shape?: readonly (number | string)[] }[];
  run: (feeds: Record<string, Tensor>) => Promise<Record<string, Tensor>>;
}

/** What comes of some steps: the logits [T][K] and the state [N] after them. */
export interface Ran {
  logits: Float32Array[];
  state: Float32Array;
}

let parts: Promise<Record<string, string>> | null = null;
let loaded: Promise<Runtime> | null = null;

/** Return where the built page has an added part; null where it was built without. */
export async function part(name: string): Promise<string | null> {
  parts ??= fetch(address("added.json")).then(
    (answer) => (answer.ok ? (answer.json() as Promise<Record<string, string>>) : {}),
    () => ({}),
  );
  return (await parts)[name] ?? null;
}

async function load(): Promise<Runtime> {
  const where = await part("runtime");
  if (where === null) throw new Error("This page was built without the runtime for browsers: make page-full.");
  const folder = address(where).href;
  const runtime = (await import(/* @vite-ignore */ `${folder}ort.wasm.bundle.min.mjs`)) as Runtime;
  runtime.env.wasm.wasmPaths = folder;
  runtime.env.wasm.numThreads = 1; // more needs headers that a page of other people's could not bear
  return runtime;
}

/** A model's graph, run here. */
export class Graph {
  private constructor(
    private readonly runtime: Runtime,
    private readonly session: Running,
  ) {}

  /** Load the graph of a model's version. Throws NotHere where it is another than the version says. */
  static async of(model: string, { version, digest }: Pick<Version, "version" | "digest">): Promise<Graph> {
    loaded ??= load();
    try {
      const runtime = await loaded;
      const told = await graph(model, version);
      needGraph(`${model} ${version}`, digest, told.digest ?? digest);
      const session = await runtime.InferenceSession.create(told.content, { executionProviders: ["wasm"] });
      return new Graph(runtime, session);
    } catch (error) {
      loaded = null;
      throw error;
    }
  }

  /** The shape of one step of x, behind its batch and its time. */
  get step(): number[] {
    return (this.session.inputMetadata.find(({ name }) => name === "x")?.shape ?? []).slice(2).map(Number);
  }

  /** Run symbols [T] from a state [N]. */
  run(symbols: readonly number[], state: Float32Array): Promise<Ran> {
    return this.answer(new this.runtime.Tensor("int64", BigInt64Array.from(symbols, BigInt), [1, symbols.length]), symbols.length, state);
  }

  /** Run steps [T] of numbers, each as many as a step of x has, from a state [N]. */
  runNumbers(steps: readonly Float32Array[], state: Float32Array): Promise<Ran> {
    const size = steps[0]!.length;
    const x = new Float32Array(steps.length * size);
    steps.forEach((step, t) => x.set(step, t * size));
    return this.answer(new this.runtime.Tensor("float32", x, [1, steps.length, ...this.step]), steps.length, state);
  }

  private async answer(x: Tensor, T: number, state: Float32Array): Promise<Ran> {
    const { Tensor } = this.runtime;
    const answered = await this.session.run({
      x,
      lengths: new Tensor("int64", BigInt64Array.of(BigInt(T)), [1]),
      state: new Tensor("float32", state, [1, state.length]),
    });
    const { data, dims } = answered["logits"]!;
    const K = dims[2]!;
    return { logits: Array.from({ length: T }, (_, t) => data.slice(t * K, (t + 1) * K)), state: answered["state_out"]!.data.slice() };
  }
}

/** The service's HTTP API, as the page asks it. Errors are the server's words. */
import { Observable } from "./observable.ts";

import type { Bodies } from "./local/anatomy.ts";

/** An answer that says no: `code` is for programs, the message is what the server said. */
export class ServiceError extends Error {
  constructor(
    readonly code: string,
    detail: string,
    readonly expectedStep: number | null = null,
  ) {
    super(detail);
  }
}

export interface Part {
  role: string;
  layer?: number;
  offset: number;
  size: number;
  activation?: string;
  u?: number[];
}

export interface LayoutInfo {
  joints: number;
  joint_names: string[];
  table?: number[][];
}

export interface Version {
  version: string;
  /** sha256 of its graph */
  digest: string;
  provider: string;
  kernel: string;
  labels: string[] | null;
  alphabet: string[] | null;
  unknown: string | null;
  /** whether POST /explain can be asked of it */
  explain: boolean;
  layout: string | null;
  layouts: Record<string, LayoutInfo> | null;
  unit: string | null;
  dims: number | null;
  persons: number | null;
  hz: number | null;
  other_below: number | null;
  features: { name: string; unit: string | null }[] | null;
  values: { name: string; unit: string | null }[] | null;
  answer: "step" | "end" | null;
  events: object | null;
  /** rows that make one answer, where it is not one */
  window: number | null;
  /** false: it looks at whole sequences, and has no sessions; a service of before does not say */
  streams?: boolean;
  /** what bodies are looked at by; only in the description of one model */
  bodies?: Bodies | null;
  limits: { max_frames: number; max_text: number; max_generate: number; max_position: number | null };
  state_size: number;
  state: Part[];
}

export interface Model {
  name: string;
  kind: string;
  modality: string;
  versions: Version[];
}

export interface SessionInfo {
  session_id: string;
  model: string;
  version: string;
  step: number;
  position: number;
  created_at?: string;
  expires_at: string;
}

const KEY = "indrnn-key";

/** The key of this tab. It is asked for when the service wants one, and goes with the tab. */
export const access = {
  wanted: new Observable(false),
  get key(): string | null {
    return sessionStorage.getItem(KEY);
  },
  give(key: string): void {
    sessionStorage.setItem(KEY, key);
    access.wanted.set(false);
  },
  /** Ask for a key, and wait for it. */
  async ask(): Promise<void> {
    access.wanted.set(true);
    await new Promise<void>((done) => {
      const stop = access.wanted.follow((wanted) => {
        if (wanted) return;
        stop();
        done();
      });
    });
  },
};

/** Return the address of a route, below the path where the page lives. */
export function address(route: string): URL {
  return new URL(route.replace(/^\//, ""), new URL(".", document.baseURI));
}

async function ask(route: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const headers = new Headers(init.headers);
    if (access.key !== null) headers.set("Authorization", `Bearer ${access.key}`);
    let answer: Response;
    try {
      answer = await fetch(address(route), { ...init, headers });
    } catch {
      throw new ServiceError("unreachable", "The service cannot be reached.");
    }
    if (answer.ok) return answer;
    const told = (await answer.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
    if (answer.status !== 401) {
      throw new ServiceError(told.code ?? String(answer.status), told.detail ?? told.title ?? `The service answered ${answer.status}.`);
    }
    await access.ask();
  }
}

async function json<T>(route: string, init?: RequestInit): Promise<T> {
  return (await (await ask(route, init)).json()) as T;
}

const id = encodeURIComponent;

export const models = async (): Promise<Model[]> => (await json<{ models: Model[] }>("models")).models;
export const model = (name: string): Promise<Model> => json(`models/${id(name)}?weights=true`);
export const sessions = async (): Promise<SessionInfo[]> => (await json<{ sessions: SessionInfo[] }>("sessions?limit=100")).sessions;
export const look = (session: string): Promise<SessionInfo> => json(`sessions/${id(session)}`);
export const fork = (session: string): Promise<SessionInfo> => json(`sessions/${id(session)}/fork`, { method: "POST" });
export const metrics = async (): Promise<string> => (await ask("metrics")).text();
export const ready = (): Promise<{ revision: string; provider: string; kernel: string }> => json("health/ready");

export async function remove(session: string): Promise<void> {
  await ask(`sessions/${id(session)}`, { method: "DELETE" });
}

/** Download a session's state, with the name that the service gives the file. */
export async function download(session: string): Promise<{ name: string; state: Blob }> {
  const answer = await ask(`sessions/${id(session)}/state`);
  const name = /filename="?([^";]+)"?/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "session.safetensors";
  return { name, state: await answer.blob() };
}

/** Download the graph of a model's version, with its sha256, null where somebody between took that away. */
export async function graph(name: string, version: string): Promise<{ content: Uint8Array; digest: string | null }> {
  const answer = await ask(`models/${id(name)}/graph?version=${id(version)}`);
  const digest = /[0-9a-f]{64}/.exec(answer.headers.get("etag") ?? "")?.[0] ?? null;
  return { content: new Uint8Array(await answer.arrayBuffer()), digest };
}

/** A question to POST /explain, as the service names its fields. */
export interface ExplainRequest {
  model: string;
  version: string;
  sequence: unknown;
  label: string;
  unknown?: string;
}

export interface Explained {
  logit: number;
  gradient: unknown[];
  relevance: unknown[];
  off: number[];
}

/** Ask what an answer depends on. An aborted question ends on the service too. */
export function explain(request: ExplainRequest, signal: AbortSignal): Promise<Explained> {
  return json("explain", { method: "POST", body: JSON.stringify(request), headers: { "Content-Type": "application/json" }, signal });
}

/** Open a new session that stands where a state file does. */
export function upload(state: Blob): Promise<SessionInfo> {
  return json("sessions", { method: "POST", body: state, headers: { "Content-Type": "application/octet-stream" } });
}

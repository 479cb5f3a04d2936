/** The list of one's own sessions: open, fork, download, delete. */
import { useEffect, useState } from "preact/hooks";
import { desk } from "../desk.ts";
import { Failure } from "../failure.tsx";
import { saveAs } from "../files.ts";
import { useObservable } from "../observable.ts";
import { download, fork, remove, sessions, upload, type SessionInfo } from "../service.ts";
import { FileButton } from "../characters/view.tsx";

/** The view that opens sessions of a modality. */
export const VIEWS: Record<string, string> = { text: "characters", skeleton: "action" };

const LISTED = 25;

export function Sessions({ visible }: { visible: boolean }) {
  const [all, list] = useState<SessionInfo[] | null>(null);
  const [error, fail] = useState<unknown>(null);
  const models = useObservable(desk.models) ?? [];
  const load = () => {
    sessions().then(list, fail);
  };
  useEffect(() => {
    if (visible) load();
  }, [visible]);
  const act = async (what: () => Promise<unknown>) => {
    fail(null);
    try {
      await what();
      load();
    } catch (problem) {
      fail(problem);
    }
  };
  const open = (session: SessionInfo) => {
    const view = VIEWS[models.find((m) => m.name === session.model)?.modality ?? ""];
    if (view === undefined) return;
    desk.handed.set(session);
    location.hash = view;
  };
  return (
    <div class="card">
      <div class="row ends">
        <h3>Your sessions</h3>
        <div class="row">
          <FileButton label="Load a state…" accept=".safetensors" take={(file) => void act(() => upload(file))} />
          <button onClick={load}>Look again</button>
        </div>
      </div>
      {error !== null && <Failure error={error} close={() => fail(null)} />}
      {all?.length === 0 && <p class="note">There are none. A session begins when something is typed or played.</p>}
      {all !== null && all.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Table of sessions">
          <table>
            <thead>
              <tr>
                <th scope="col">session</th>
                <th scope="col">model</th>
                <th scope="col" class="number">step</th>
                <th scope="col" class="number wide">position</th>
                <th scope="col" class="wide">expires</th>
                <th scope="col">
                  <span class="aside">what to do</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {all.slice(0, LISTED).map((session) => (
                <tr key={session.session_id}>
                  <td class="mono">{session.session_id.slice(0, 8)}…</td>
                  <td>
                    {session.model} {session.version}
                  </td>
                  <td class="number">{session.step}</td>
                  <td class="number wide">{session.position}</td>
                  <td class="wide">{new Date(session.expires_at).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })}</td>
                  <td>
                    <div class="row acts">
                      {VIEWS[models.find((m) => m.name === session.model)?.modality ?? ""] !== undefined && (
                        <button class="chip" onClick={() => open(session)}>
                          Open
                        </button>
                      )}
                      <button class="chip" onClick={() => void act(() => fork(session.session_id))}>
                        Fork
                      </button>
                      <button
                        class="chip"
                        onClick={() => void act(async () => { const { name, state } = await download(session.session_id); saveAs(name, state); })}
                      >
                        Download
                      </button>
                      <button class="chip" onClick={() => void act(() => remove(session.session_id))}>
                        Delete
                      </button>
                    </div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {all !== null && all.length > LISTED && <p class="note">The newest {LISTED} of {all.length === 100 ? "100 or more" : all.length}.</p>}
      <p class="note">A session lives on the server until it expires or is deleted. Without keys, everybody who reaches the service sees them all.</p>
    </div>
  );
}

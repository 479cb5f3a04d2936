/** A choice among the sessions of one version of a model. */
import { useEffect, useState } from "preact/hooks";
import { sessions, type Model, type SessionInfo, type Version } from "../service.ts";

interface OthersProps {
  model: Model;
  version: Version;
  label: string;
  /** what is chosen while no session is */
  none: string;
  chosen?: SessionInfo | null;
  /** sessions that are not offered */
  own?: readonly (string | null | undefined)[];
  disabled?: boolean;
  take: (session: SessionInfo | null) => void;
  fail: (error: unknown) => void;
}

const LISTED = 25;

/** Names a session as the list of Service does. */
export const called = (session: SessionInfo): string => `${session.session_id.slice(0, 8)}…`;

/** Offer the newest sessions; the list is fetched anew when one is about to choose. Nothing is shown where there are none. */
export function Others({ model, version, label, none, chosen = null, own = [], disabled = false, take, fail }: OthersProps) {
  const [all, list] = useState<SessionInfo[]>([]);
  const load = () => {
    sessions().then((found) => list(found.filter((s) => s.model === model.name && s.version === version.version).slice(0, LISTED)), fail);
  };
  useEffect(load, [model, version]);
  const others = all.filter((s) => !own.includes(s.session_id));
  const offered = chosen === null || others.some((s) => s.session_id === chosen.session_id) ? others : [chosen, ...others];
  if (offered.length === 0) return null;
  return (
    <label class="field">
      {label}
      <select
        disabled={disabled}
        onFocus={load}
        onPointerEnter={load}
        onChange={(event) => {
          const id = event.currentTarget.value;
          take(offered.find((s) => s.session_id === id) ?? null);
        }}
      >
        <option value="" selected={chosen === null}>
          {none}
        </option>
        {offered.map((session) => (
          <option key={session.session_id} value={session.session_id} selected={session.session_id === chosen?.session_id}>
            {called(session)}, {session.position} read
          </option>
        ))}
      </select>
    </label>
  );
}

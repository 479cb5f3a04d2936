/** The switch between the server and the browser, where the page was built with the runtime for browsers. */
import { useEffect, useState } from "preact/hooks";
import { part } from "./runtime.ts";

interface RunHereProps {
  /** after which step the server's session was left; null where the server computes */
  left: number | null;
  moving: boolean;
  disabled: boolean;
  toggle: () => void;
  /** what else is to be known while the browser computes */
  more?: string;
}

export function RunHere({ left, moving, disabled, toggle, more = "" }: RunHereProps) {
  const [there, know] = useState(false);
  useEffect(() => {
    void part("runtime").then((where) => know(where !== null));
  }, []);
  if (!there) return null;
  const here = left !== null;
  return (
    <div class="row">
      <label class="field">
        <input type="checkbox" checked={here} disabled={disabled} onChange={toggle} />
        <span>run here</span>
      </label>
      <p class="note" role="status">
        {moving
          ? here
            ? "Taking the state back. It waits for the service; nothing is lost."
            : "Taking the model and the state down…"
          : here
            ? `This browser computes now; the server's session waits after step ${left}. Untick to take the state back.${more}`
            : "The server computes. Ticked, the page takes the model and the session's state down and goes on without it, also offline."}
      </p>
    </div>
  );
}

import { ServiceError } from "./service.ts";

/** An error, in the server's words where it is the server's. */
export function Failure({ error, again, close }: { error: unknown; again?: () => void; close?: () => void }) {
  const words = error instanceof Error ? error.message : String(error);
  return (
    <div class="error" role="alert">
      <span>
        {words}
        {error instanceof ServiceError && <small> ({error.code})</small>}
      </span>
      {again && <button onClick={again}>Try again</button>}
      {close && (
        <button class="plain" onClick={close}>
          close
        </button>
      )}
    </div>
  );
}

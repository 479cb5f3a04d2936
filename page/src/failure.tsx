import { useEffect, useRef } from "preact/hooks";
import { ClientError } from "../client/src/index.ts";
import { ServiceError } from "./service.ts";

/** An error, in the server's words where it is the server's. */
export function Failure({ error, again, close }: { error: unknown; again?: () => void; close?: () => void }) {
  const words = error instanceof Error ? error.message : String(error);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => box.current!.scrollIntoView({ block: "nearest" }), [error]); // on a phone it may stand below what was touched
  const code = error instanceof ServiceError || error instanceof ClientError ? error.code : "";
  return (
    <div class="error" role="alert" ref={box}>
      <span>
        {words}
        {code !== "" && <small> ({code})</small>}
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

/** The frame round the views: tabs, what is said of the connection, the key. */
import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { link } from "./connection.ts";
import { desk } from "./desk.ts";
import { useObservable } from "./observable.ts";
import { access, models, ready } from "./service.ts";
import { Action } from "./action/view.tsx";
import { Neurons } from "./neurons/view.tsx";
import { Service } from "./serving/view.tsx";
import { Characters } from "./characters/view.tsx";
import { Failure } from "./failure.tsx";

interface Tab {
  name: string;
  title: string;
  View: ComponentType;
}

const TABS: Tab[] = [
  { name: "action", title: "Action", View: Action },
  { name: "characters", title: "Characters", View: Characters },
  { name: "neurons", title: "Neurons", View: Neurons },
  { name: "service", title: "Service", View: Service },
];

function here(): string {
  const name = location.hash.slice(1).split("/")[0];
  return TABS.some((tab) => tab.name === name) ? name! : TABS[0]!.name;
}

export function Shell() {
  const [current, go] = useState(here);
  const [seen, see] = useState<ReadonlySet<string>>(new Set([here()]));
  const served = useObservable(desk.models);
  const [error, fail] = useState<unknown>(null);

  useEffect(() => {
    const follow = () => go(here());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => {
    if (!seen.has(current)) see(new Set([...seen, current]));
    desk.view.set(current);
    document.title = `${TABS.find((tab) => tab.name === current)!.title} · indrnn`;
  }, [current]);
  const load = () => {
    fail(null);
    models().then((found) => desk.models.set(found), fail);
  };
  useEffect(load, []);

  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault(); // the address names the view
          document.getElementById("main")!.focus();
        }}
      >
        To the view
      </a>
      <header class="head">
        <h1>
          <img src="./icon.svg" alt="" />
          indrnn
        </h1>
        <nav class="tabs" aria-label="Views">
          {TABS.map((tab) => (
            <a key={tab.name} href={`#${tab.name}`} aria-current={tab.name === current ? "page" : undefined}>
              {tab.title}
            </a>
          ))}
        </nav>
        <About />
      </header>
      <Connection />
      <KeyDialog />
      <main id="main" tabIndex={-1}>
        {error !== null && <Failure error={error} again={load} />}
        {served !== null &&
          TABS.filter((tab) => seen.has(tab.name) || tab.name === current).map((tab) => (
            <div key={tab.name} hidden={tab.name !== current}>
              <tab.View />
            </div>
          ))}
      </main>
    </>
  );
}

function About() {
  const [told, tell] = useState("");
  useEffect(() => {
    ready().then(
      (r) => tell(`${r.provider}, kernel ${r.kernel}, revision ${r.revision}`),
      () => tell(""),
    );
  }, []);
  return <p class="about">{told}</p>;
}

function Connection() {
  const lost = useObservable(link.lost);
  const resumed = useObservable(link.resumed);
  const [told, tell] = useState(false);
  useEffect(() => {
    if (resumed === 0) return;
    tell(true);
    const timer = setTimeout(() => tell(false), 4000);
    return () => clearTimeout(timer);
  }, [resumed]);
  return (
    <div role="status">
      {lost > 0 && <p class="banner">Connection lost. Trying again; nothing is lost, the session goes on where it stood.</p>}
      {lost === 0 && told && <p class="banner good">Connected again. The session went on at its step.</p>}
    </div>
  );
}

function KeyDialog() {
  const wanted = useObservable(access.wanted);
  const dialog = useRef<HTMLDialogElement>(null);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (wanted && !dialog.current!.open) dialog.current!.showModal();
    if (!wanted) dialog.current!.close();
  }, [wanted]);
  const give = (event: Event) => {
    event.preventDefault();
    const key = field.current!.value.trim();
    if (key === "") return;
    field.current!.value = "";
    access.give(key);
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={(event) => event.preventDefault()}>
      <form onSubmit={give}>
        <h2 id="key-title">This service wants a key</h2>
        <p class="note">
          {access.key === null ? "" : "The key that was given is not known. "}It is kept for this tab alone, and sent to this service alone.
        </p>
        <label class="field">
          Key <input ref={field} type="password" autocomplete="off" />
        </label>
        <button class="main">Go on</button>
      </form>
    </dialog>
  );
}

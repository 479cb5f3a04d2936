import { useEffect, useState } from "preact/hooks";

/** A value that views follow. */
export class Observable<T> {
  private readonly followers = new Set<(value: T) => void>();

  constructor(private current: T) {}

  get value(): T {
    return this.current;
  }

  set(value: T): void {
    this.current = value;
    for (const follow of [...this.followers]) follow(value);
  }

  follow(follower: (value: T) => void): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }
}

/** Return the observed value, and render anew when it changes. */
export function useObservable<T>(observable: Observable<T>): T {
  const [, turn] = useState(0);
  useEffect(() => observable.follow(() => turn((n) => n + 1)), [observable]);
  return observable.value;
}

/** Return a function that renders the component anew, at most once a frame. */
export function useRedraw(): () => void {
  const [, turn] = useState(0);
  const [state] = useState({ waiting: false, gone: false });
  useEffect(
    () => () => {
      state.gone = true;
    },
    [state],
  );
  return () => {
    if (state.waiting || state.gone) return;
    state.waiting = true;
    requestAnimationFrame(() => {
      state.waiting = false;
      if (!state.gone) turn((n) => n + 1);
    });
  };
}

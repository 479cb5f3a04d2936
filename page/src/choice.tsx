import type { Model } from "./service.ts";

/** Which of the models a view shows. */
export function ModelChoice({ models, current, choose }: { models: readonly Model[]; current: Model | undefined; choose: (model: Model) => void }) {
  return (
    <label class="field">
      Model
      <select onChange={(event) => choose(models[event.currentTarget.selectedIndex]!)}>
        {models.map((m) => (
          <option key={m.name} selected={m.name === current?.name}>
            {m.name}
          </option>
        ))}
      </select>
    </label>
  );
}

/** What the views share: the served models, and sessions that one view hands to another. */
import { Observable } from "./observable.ts";
import type { Model, SessionInfo, Version } from "./service.ts";

export const desk = {
  models: new Observable<Model[] | null>(null),
  /** the name of the view that is shown */
  view: new Observable(""),
  /** a session that a view should open */
  handed: new Observable<SessionInfo | null>(null),
};

export function modelsOf(modality: string): Model[] {
  return (desk.models.value ?? []).filter((m) => m.modality === modality && streams(m));
}

/** Whether new sessions can be had of a model: one that looks at whole sequences has none. */
export function streams(model: Model): boolean {
  return newest(model).streams !== false;
}

/** The version that new sessions take. */
export function newest(model: Model): Version {
  return model.versions.at(-1)!;
}

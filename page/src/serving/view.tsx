/** Service: what is served, how it does, and one's own sessions. */
import { useObservable } from "../observable.ts";
import { desk } from "../desk.ts";
import { Numbers } from "./numbers.tsx";
import { Numeric } from "./rows.tsx";
import { Sessions } from "./sessions.tsx";
import "./service.css";

export function Service() {
  const visible = useObservable(desk.view) === "service";
  return (
    <section class="view" aria-labelledby="service-title">
      <div class="lead">
        <h2 id="service-title">Service</h2>
        <p>
          What runs here, and how it does. The API is described at <a href="docs">/docs</a>.
        </p>
      </div>
      <Numbers visible={visible} />
      <Sessions visible={visible} />
      <Numeric />
    </section>
  );
}

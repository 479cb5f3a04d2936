/** Search: by a marked stretch, or by a property of what was read. */
import { useState } from "preact/hooks";
import type { Property } from "./properties.ts";
import { alike, byChance, following, higherInside, type Found } from "./search.ts";
import { memory, type Trace } from "./trace.ts";

interface SearchingProps {
  trace: Trace;
  properties: readonly Property[];
  marked: readonly [number, number] | null;
  mark: (stretch: readonly [number, number] | null) => void;
  choose: (neuron: number | null, step: number | null) => void;
  neuron: number | null;
  /** what stands round a step, as text */
  context: (step: number) => string;
  /** how a stretch is marked here */
  how: string;
}

interface Outcome {
  title: string;
  measure: string;
  neurons: Found[];
  value: (found: Found) => string;
  places: { step: number; value: number }[];
}

const LISTED = 10;
const FEW = 12; // steps below which a search says little

export function Searching({ trace, properties, marked, mark, choose, neuron, context, how }: SearchingProps) {
  const [outcome, put] = useState<Outcome | null>(null);
  const enough = trace.length - trace.dropped >= FEW;
  const byExample = () => {
    if (marked === null) return;
    const [from, to] = marked;
    const neurons = higherInside(trace, from, to, LISTED);
    put({
      title: `Neurons that are higher in the marked ${to - from} ${to - from === 1 ? "step" : "steps"} than elsewhere`,
      measure: "Of all pairs of a step inside and one outside, the share in which the neuron is higher inside.",
      neurons,
      value: (f) => `${(100 * f.value).toFixed(0)} %`,
      places: alike(trace, from, to, 5),
    });
    if (neurons[0]) choose(neurons[0].neuron, from);
  };
  const byProperty = (property: Property) => {
    const neurons = following(trace, property.values, LISTED);
    const steps = trace.length - trace.dropped;
    put({
      title: `Neurons that follow: ${property.name}`,
      measure:
        neurons.length === 0
          ? "It did not change in what was read so far."
          : `Pearson's correlation over ${steps} steps. The best of ${trace.size} would reach ${byChance(trace.size, steps).toFixed(2)} by chance, more where both change slowly.`,
      neurons,
      value: (f) => `r = ${f.value.toFixed(2)}, ${f.value < 0 ? "against" : "with"} it`,
      places: [],
    });
    if (neurons[0]) choose(neurons[0].neuron, null);
  };
  return (
    <div class="card">
      <h3>Search</h3>
      <p class="note">By example: {how} Then ask which neurons are on there and off elsewhere.</p>
      <div class="row">
        <button class="main" disabled={marked === null || !enough} onClick={byExample}>
          Search by the marked stretch
        </button>
        {marked !== null && (
          <button onClick={() => mark(null)}>
            Unmark ({marked[1] - marked[0]} {marked[1] - marked[0] === 1 ? "step" : "steps"})
          </button>
        )}
      </div>
      <p class="note">By property: which neurons follow</p>
      <div class="row" role="group" aria-label="Properties">
        {properties.map((property) => (
          <button key={property.name} class="chip" disabled={!enough} onClick={() => byProperty(property)}>
            {property.name}
          </button>
        ))}
      </div>
      <div aria-live="polite">
        {outcome !== null && (
          <div class="outcome">
            <p>
              <b>{outcome.title}</b>
            </p>
            <p class="note">{outcome.measure}</p>
            <ol class="found">
              {outcome.neurons.map((found) => (
                <li key={found.neuron}>
                  <button class="chip" aria-pressed={found.neuron === neuron} onClick={() => choose(found.neuron, null)}>
                    {trace.name(found.neuron)}
                  </button>{" "}
                  <span>{outcome.value(found)}</span>
                  <span class="quiet">
                    ; u {trace.u[found.neuron]!.toFixed(2)}, {steps(memory(trace.u[found.neuron]!))}
                  </span>
                </li>
              ))}
            </ol>
            {outcome.places.length > 0 && (
              <>
                <p>Where else the network was in a like state</p>
                <p class="note">The cosine between the states, each neuron by its own largest value.</p>
                <ol class="found">
                  {outcome.places.map((place) => (
                    <li key={place.step}>
                      <button class="chip mono" onClick={() => choose(neuron, place.step)}>
                        {context(place.step)}
                      </button>{" "}
                      <span>{place.value.toFixed(2)}</span>
                    </li>
                  ))}
                </ol>
              </>
            )}
          </div>
        )}
      </div>
    </div>
  );
}

function steps(half: number): string {
  return half === Infinity ? "remembers for ever" : `remembers ${half < 10 ? half.toFixed(1) : half.toFixed(0)} steps`;
}

import { expect, test } from "vitest";
import { quantile, readMetrics, total } from "../src/metrics.ts";

const text = (counts: number[]) => `# HELP t_seconds how long
t_seconds_bucket{le="0.1",model="a \\"b\\""} ${counts[0]}
t_seconds_bucket{le="1.0",model="a \\"b\\""} ${counts[1]}
t_seconds_bucket{le="+Inf",model="a \\"b\\""} ${counts[2]}
steps_total{model="x"} 3
steps_total{model="y"} 4.5e1
`;

test("samples have names, labels and values", () => {
  const samples = readMetrics(text([1, 2, 3]));
  expect(samples.length).toBe(5);
  expect(samples[0]).toEqual({ name: "t_seconds_bucket", labels: { le: "0.1", model: 'a "b"' }, value: 1 });
  expect(total(samples, "steps_total")).toBe(48);
  expect(total(samples, "steps_total", { model: "y" })).toBe(45);
});

test("a quantile is of what was counted between two looks", () => {
  const [before, after] = [readMetrics(text([100, 100, 100])), readMetrics(text([104, 110, 110]))];
  expect(quantile(before, after, "t_seconds", 0.2)).toBeCloseTo(0.05);
  expect(quantile(before, after, "t_seconds", 0.7)).toBeCloseTo(0.1 + 0.9 * 0.5);
  expect(quantile(before, before, "t_seconds", 0.5)).toBeNull();
  expect(quantile(readMetrics(text([0, 0, 0])), readMetrics(text([0, 0, 5])), "t_seconds", 0.5)).toBe(1);
});

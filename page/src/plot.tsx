/** Lines over time (uPlot), in the page's colours. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { colours } from "./paint.ts";

interface PlotProps {
  data: uPlot.AlignedData;
  lines: { label: string; stroke: () => string; width?: () => number; dash?: () => number[] }[];
  height: number;
  label: string;
  range?: (() => [number, number]) | undefined;
  span?: (() => [number, number]) | undefined;
  ticks?: (value: number) => string;
  unit?: string;
  /** draws over the lines */
  over?: (plot: uPlot, paint: CanvasRenderingContext2D) => void;
}

export function Plot({ data, lines, height, label, range, span, ticks, unit = "s", over }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef({ lines, range, span, over });
  now.current = { lines, range, span, over };
  useEffect(() => {
    const paint = (name: string) => () => colours(name)[name]!;
    const axis = { stroke: paint("quiet"), grid: { stroke: paint("line"), width: 1 }, ticks: { stroke: paint("line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const made = new uPlot(
      {
        width: box.current!.clientWidth,
        height,
        legend: { show: false },
        cursor: { show: false },
        pxAlign: 0,
        scales: {
          x: { time: false, range: (_, min, max) => now.current.span?.() ?? [min, Math.max(max, min + 1)] },
          y: { range: (_, min, max) => now.current.range?.() ?? [Math.min(0, min), max > min ? max * 1.05 : min + 1] },
        },
        axes: [
          { ...axis, values: (_, values) => values.map((v) => `${v} ${unit}`), size: 28 },
          { ...axis, values: (_, values) => values.map((v) => ticks?.(v) ?? String(v)), size: 52 },
        ],
        series: [
          {},
          ...lines.map((_, i) => ({
            stroke: () => now.current.lines[i]?.stroke() ?? "transparent",
            points: { show: false },
            spanGaps: true,
          })),
        ],
        hooks: {
          drawSeries: [],
          draw: [(u) => now.current.over?.(u, u.ctx)],
        },
      },
      data,
      box.current!,
    );
    plot.current = made;
    const here = box.current!;
    let waiting = 0;
    // In the next frame: what changes a layout while it is being observed is reported as an error ("ResizeObserver loop").
    const watcher = new ResizeObserver(() => {
      waiting ||= requestAnimationFrame(() => {
        waiting = 0;
        if (here.clientWidth > 0 && here.clientWidth !== made.width) made.setSize({ width: here.clientWidth, height });
      });
    });
    watcher.observe(here);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => made.redraw(false);
    scheme.addEventListener("change", repaint);
    return () => {
      watcher.disconnect();
      cancelAnimationFrame(waiting);
      scheme.removeEventListener("change", repaint);
      made.destroy();
    };
  }, [lines.length, height]);
  useEffect(() => {
    const u = plot.current!;
    lines.forEach((line, i) => {
      const drawn = u.series[i + 1]!;
      drawn.width = line.width?.() ?? 2;
      drawn.dash = line.dash?.() ?? [];
    });
    u.setData(data);
  });
  return <div ref={box} class="plot" role="img" aria-label={label} />;
}

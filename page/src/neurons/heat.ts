/** A heat map of neurons by time: one pixel a neuron and step, in a ring of columns. */
import type { Trace } from "./trace.ts";

// Cividis (Nuñez, Anderton and Renslow 2018): the same for those who see all colours and those who do not.
const CIVIDIS = [0x00224e, 0x123570, 0x3b496c, 0x575d6d, 0x707173, 0x8a8678, 0xa59c74, 0xc3b369, 0xe1cc55, 0xfee838];
const SIGNED = [0x8fd0f5, 0x3b7fa8, 0x14202b, 0xa8682f, 0xffc48a];
const GROWN = 1.15; // a row is painted anew when its largest value has grown by so much

/** Return 256 colours between the given ones, as the pixels of an image. */
export function ramp(stops: readonly number[]): Uint32Array {
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    const mix = (shift: number) => {
      const [a, b] = [(stops[low]! >> shift) & 255, (stops[low + 1]! >> shift) & 255];
      return Math.round(a + (b - a) * (at - low));
    };
    colours[i] = (255 << 24) | (mix(0) << 16) | (mix(8) << 8) | mix(16); // ABGR
  }
  return colours;
}

export const POSITIVE = ramp(CIVIDIS);
export const BOTH = ramp(SIGNED);

/** Return which of 256 colours a value has beside the largest of its neuron. Small values are drawn out: a square root. */
export function shade(value: number, most: number, signed: boolean): number {
  if (most === 0) return signed ? 128 : 0;
  const size = Math.sqrt(Math.min(1, Math.abs(value) / most));
  if (signed) return Math.round(127.5 + 127.5 * size * Math.sign(value));
  return value > 0 ? Math.round(255 * size) : 0;
}

export class HeatMap {
  private image: ImageData;
  private pixels: Uint32Array;
  private painted: Float32Array;
  private done = 0;
  private signed: boolean[] = [];

  /** width: steps that are shown at once. */
  constructor(
    readonly trace: Trace,
    readonly order: Int32Array,
    readonly width = 300,
  ) {
    this.image = new ImageData(width, order.length);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.painted = new Float32Array(order.length);
    this.done = Math.max(trace.dropped, trace.length - width);
    this.signed = Array.from(order, (n) => trace.layerOf(n).activation !== "relu" && trace.layerOf(n).activation !== "sigmoid");
  }

  /** The first step that is shown. */
  get from(): number {
    return Math.max(0, this.trace.length - this.width);
  }

  /** Paint what is new since the last time. */
  paint(canvas: HTMLCanvasElement): void {
    const { trace, order, width, pixels, painted } = this;
    if (canvas.width !== width || canvas.height !== order.length) {
      canvas.width = width;
      canvas.height = order.length;
    }
    const first = Math.max(this.done, trace.length - width, trace.dropped);
    for (let row = 0; row < order.length; row++) {
      const neuron = order[row]!;
      const most = trace.most[neuron]!;
      const anew = most > painted[row]! * GROWN;
      if (anew) painted[row] = most;
      const scale = painted[row]!;
      const signed = this.signed[row]!;
      const colours = signed ? BOTH : POSITIVE;
      for (let step = anew ? Math.max(this.from, trace.dropped) : first; step < trace.length; step++) {
        pixels[row * width + (step % width)] = colours[shade(trace.at(step)![neuron]!, scale, signed)]!;
      }
    }
    this.done = trace.length;
    const paper = canvas.getContext("2d")!;
    const cut = trace.length > width ? trace.length % width : 0;
    paper.putImageData(this.image, -cut, 0, cut, 0, width - cut, order.length);
    if (cut > 0) paper.putImageData(this.image, width - cut, 0, 0, 0, cut, order.length);
  }
}

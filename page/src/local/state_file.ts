/** A session's state as a file (docs/state.md): safetensors, of which the page reads and writes the one tensor `state` and the metadata. */

export interface StateFile {
  metadata: Record<string, string>;
  state: Float32Array;
}

/** Read a state. Throws where there is more in the file than a state, such as frames that wait to be resampled. */
export function readState(bytes: ArrayBuffer): StateFile {
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length))) as Record<string, { shape: number[]; data_offsets: [number, number] }>;
  const { __metadata__: metadata, state, ...others } = header;
  if (state === undefined || Object.keys(others).length > 0) throw new Error("The state has parts that only the service goes on from.");
  const [from, to] = state.data_offsets;
  return { metadata: metadata as unknown as Record<string, string>, state: new Float32Array(bytes.slice(8 + length + from, 8 + length + to)) };
}

/** Write a state, as the service does. */
export function writeState({ metadata, state }: StateFile): Uint8Array<ArrayBuffer> {
  const header = { __metadata__: metadata, state: { dtype: "F32", shape: [state.length], data_offsets: [0, 4 * state.length] } };
  let head = JSON.stringify(header);
  head += " ".repeat((8 - (new TextEncoder().encode(head).length % 8)) % 8);
  const text = new TextEncoder().encode(head);
  const bytes = new Uint8Array(8 + text.length + 4 * state.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(new Uint8Array(state.buffer, state.byteOffset, 4 * state.length), 8 + text.length);
  return bytes;
}

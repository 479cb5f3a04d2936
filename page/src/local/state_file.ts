/** A session's state as a file (docs/state.md): safetensors, of which the page reads and writes the tensors `state` and `carry` and the metadata. */

export interface StateFile {
  metadata: Record<string, string>;
  state: Float32Array;
  /** [P][J][3], the last frame as it was sent, where frames wait to be resampled */
  carry?: Float32Array | undefined;
}

interface Entry {
  shape: number[];
  data_offsets: [number, number];
}

/** Read a state. Throws where there is more in the file than the page knows. */
export function readState(bytes: ArrayBuffer): StateFile {
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length))) as Record<string, Entry>;
  const { __metadata__: metadata, state, carry, ...others } = header;
  if (state === undefined || Object.keys(others).length > 0) throw new Error("The state has parts that only the service goes on from.");
  const read = ({ data_offsets: [from, to] }: Entry) => new Float32Array(bytes.slice(8 + length + from, 8 + length + to));
  return { metadata: metadata as unknown as Record<string, string>, state: read(state), ...(carry && { carry: read(carry) }) };
}

/** Write a state, as the service does; shape: of the carry, [P, J, 3]. */
export function writeState({ metadata, state, carry }: StateFile, shape: readonly number[] = []): Uint8Array<ArrayBuffer> {
  const tensors = { state, ...(carry && { carry }) };
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const [name, values] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape: name === "carry" ? shape : [values.length], data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  let head = JSON.stringify(header);
  head += " ".repeat((8 - (new TextEncoder().encode(head).length % 8)) % 8);
  const text = new TextEncoder().encode(head);
  const bytes = new Uint8Array(8 + text.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  let at = 8 + text.length;
  for (const values of Object.values(tensors)) {
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return bytes;
}

/** Reads a dropped file by its kind. */
import { NotReadable, type Recording } from "../recording.ts";
import { readCsv } from "./csv.ts";
import { readJson } from "./json.ts";
import { readNpy, readNpz } from "./npz.ts";
import { readNtu } from "./ntu.ts";

export const ACCEPTED = ".npz,.npy,.json,.csv,.tsv,.skeleton";
const MOST = 64 * 2 ** 20; // bytes

type Reader = (file: File) => Promise<Recording>;

const READERS: Record<string, Reader> = {
  npz: async (file) => readNpz(await file.arrayBuffer()),
  npy: async (file) => readNpy(await file.arrayBuffer()),
  json: async (file) => readJson(await file.text()),
  csv: async (file) => readCsv(await file.text()),
  tsv: async (file) => readCsv(await file.text()),
  skeleton: async (file) => readNtu(await file.text()),
};

/** Read a recording. Throws NotReadable, which says what was expected. */
export async function readFile(file: File): Promise<Recording> {
  const end = /\.([a-z]+)$/i.exec(file.name)?.[1]?.toLowerCase() ?? "";
  const reader = READERS[end];
  if (reader === undefined) throw new NotReadable(`${file.name}: expected a file that ends in ${ACCEPTED.replaceAll(",", ", ")}.`);
  if (file.size > MOST) throw new NotReadable(`${file.name} is larger than ${MOST / 2 ** 20} MB.`);
  const recording = await reader(file);
  recording.clips = recording.clips.filter((clip) => clip.frames.length > 0);
  if (recording.clips.length === 0) throw new NotReadable(`${file.name} has no frames.`);
  const joints = recording.clips[0]!.frames[0]!.length;
  if (recording.clips.some((clip) => clip.frames.some((frame) => frame.length !== joints))) {
    throw new NotReadable(`${file.name}: not every frame has ${joints} joints.`);
  }
  return recording;
}

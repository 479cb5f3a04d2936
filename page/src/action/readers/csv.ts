/** Tables with a header: columns such as `left_wrist_x`, a row a frame; or a row a joint with columns frame, joint, x, y, z. */
import { NotReadable, type Joint, type Recording } from "../recording.ts";

/** Return the cells of a table, row by row. */
export function cells(text: string): string[][] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const cut = [",", "\t", ";"].find((c) => lines[0]?.includes(c)) ?? ",";
  return lines.map((line) => line.split(cut).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1")));
}

export function readCsv(text: string): Recording {
  const [header, ...rows] = cells(text);
  if (header === undefined || rows.length === 0) throw new NotReadable("Expected a header and rows.");
  const at = new Map(header.map((name, i) => [name.toLowerCase(), i]));
  const [joint, x, y] = ["joint", "x", "y"].map((name) => at.get(name));
  if (joint !== undefined && x !== undefined && y !== undefined) return long(rows, joint, x, y, at.get("z"), at.get("frame") ?? at.get("time"));
  const found = new Map<string, number[]>();
  header.forEach((name, i) => {
    const [, base, axis] = /^(.*?)[_ .]?([xyz])$/i.exec(name) ?? [];
    if (base === undefined || base === "" || axis === undefined) return;
    const columns = found.get(base) ?? [];
    columns["xyz".indexOf(axis.toLowerCase())] = i;
    found.set(base, columns);
  });
  const names = [...found.keys()].filter((name) => found.get(name)![0] !== undefined && found.get(name)![1] !== undefined);
  if (names.length < 3) throw new NotReadable(`Expected columns such as left_wrist_x, or joint, x, y and z; got ${header.slice(0, 6).join(", ")}.`);
  const frames = rows.map((row, t) => names.map((name) => place(found.get(name)!.map((i) => row[i] ?? ""), t)));
  return { format: "a table", clips: [{ name: "clip 1", frames }], names, hz: rate(rows, at.get("time")) };
}

function long(rows: string[][], joint: number, x: number, y: number, z: number | undefined, frame: number | undefined): Recording {
  const names = [...new Set(rows.map((row) => row[joint] ?? ""))];
  const frames: Joint[][] = [];
  let before: string | undefined;
  rows.forEach((row, i) => {
    const now = frame === undefined ? String(Math.floor(i / names.length)) : row[frame];
    if (now !== before) frames.push(names.map(() => null));
    before = now;
    const columns = z === undefined ? [x, y] : [x, y, z];
    frames.at(-1)![names.indexOf(row[joint] ?? "")] = place(columns.map((c) => row[c] ?? ""), i);
  });
  const numbered = names.every((name) => /^\d+$/.test(name));
  return { format: "a table", clips: [{ name: "clip 1", frames }], names: numbered ? null : names, hz: null };
}

function place(texts: string[], row: number): Joint {
  if (texts.some((text) => text === "" || /^nan$/i.test(text))) return null;
  const numbers = texts.map(Number);
  if (numbers.some((n) => !Number.isFinite(n))) throw new NotReadable(`Row ${row + 2}: expected numbers, got ${texts.join(", ")}.`);
  return numbers;
}

function rate(rows: string[][], time: number | undefined): number | null {
  if (time === undefined || rows.length < 2) return null;
  const span = Number(rows.at(-1)![time]) - Number(rows[0]![time]);
  return span > 0 ? Math.round((10 * (rows.length - 1)) / span) / 10 : null;
}

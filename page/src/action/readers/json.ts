/** Clips in JSON: what `POST /predict` takes, bare lists, and MediaPipe's landmarks frame by frame. */
import { NotReadable, type Frames, type Joint, type Recording } from "../recording.ts";

const LANDMARKS = ["world_landmarks", "worldLandmarks", "poseWorldLandmarks", "landmarks", "poseLandmarks", "keypoints", "joints"];

export function readJson(text: string): Recording {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw new NotReadable("The file ends in .json, but it is no JSON.");
  }
  const head = isObject(content) ? content : {};
  const list = Array.isArray(content) ? content : (head["sequences"] ?? head["clips"] ?? head["frames"]);
  if (!Array.isArray(list) || list.length === 0) {
    throw new NotReadable('Expected a clip [frames][joints][3], {"sequences": [clip, …]} or a list of frames with landmarks.');
  }
  const several = head["sequences"] !== undefined || head["clips"] !== undefined || depth(list) > 4;
  const clips = (several ? list : [list]).map((clip, i) => ({ name: `clip ${i + 1}`, frames: asFrames(clip) }));
  const hz = typeof head["hz"] === "number" ? head["hz"] : null;
  const names = Array.isArray(head["joint_names"]) ? head["joint_names"].map(String) : null;
  return { format: "JSON", clips, names, hz };
}

function asFrames(clip: unknown): Frames {
  if (!Array.isArray(clip)) throw new NotReadable("Expected a list of frames.");
  return clip.map((frame, t) => {
    const joints = joined(frame);
    if (!Array.isArray(joints)) throw new NotReadable(`Frame ${t}: expected a list of joints.`);
    const list: unknown = depth(joints) > 2 ? firstBody(joints) : joints;
    return (list as unknown[]).map((joint, j) => asJoint(joint, t, j));
  });
}

/** Return the joints of a frame that is an object. */
function joined(frame: unknown): unknown {
  if (!isObject(frame)) return frame;
  const name = LANDMARKS.find((n) => frame[n] !== undefined);
  return name === undefined ? null : frame[name];
}

function asJoint(joint: unknown, t: number, j: number): Joint {
  if (joint === null) return null;
  if (isObject(joint)) joint = [joint["x"], joint["y"], joint["z"] ?? 0];
  if (!Array.isArray(joint) || joint.length < 2 || !joint.slice(0, 3).every((v) => typeof v === "number")) {
    throw new NotReadable(`Frame ${t}, joint ${j}: expected two or three numbers, or null.`);
  }
  return joint.slice(0, 3) as number[];
}

function firstBody(persons: unknown[]): unknown {
  return persons.find((p) => Array.isArray(p) && p.flat(2).some((v) => v !== 0 && v !== null)) ?? persons[0];
}

function depth(value: unknown): number {
  if (isObject(value)) return 1;
  return Array.isArray(value) ? 1 + Math.max(0, ...value.slice(0, 3).map(depth)) : 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

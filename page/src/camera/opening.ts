/** Opening a camera, and what is said where that is not to be had. */

/** The camera cannot be used; the message says why, and what helps. */
export class CameraProblem extends Error {}

const REASONS: Record<string, string> = {
  NotAllowedError: "The browser was not allowed to use the camera: allow it for this page, and try again.",
  SecurityError: "The browser was not allowed to use the camera: allow it for this page, and try again.",
  NotFoundError: "No camera was found.",
  OverconstrainedError: "No camera was found.",
  NotReadableError: "The camera cannot be read: another program may be using it.",
  AbortError: "The camera cannot be read: another program may be using it.",
};
const INSECURE = "Browsers give a camera only to pages of localhost or of HTTPS, and this one is neither.";
const SIZE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };

/** Throw CameraProblem where a video does not tell when each of its pictures comes, by which frames get their moments. */
export function needPictures(video: object): void {
  if (!("requestVideoFrameCallback" in video)) {
    throw new CameraProblem("This browser does not tell when a camera's pictures come (requestVideoFrameCallback): take a newer one.");
  }
}

type Devices = Pick<MediaDevices, "getUserMedia">;

/** Open the camera. Throws CameraProblem. */
export async function openCamera(devices: Devices | null = "mediaDevices" in navigator ? navigator.mediaDevices : null, secure = isSecureContext): Promise<MediaStream> {
  if (!secure) throw new CameraProblem(INSECURE);
  if (devices === null) throw new CameraProblem("This browser gives pages no camera.");
  try {
    return await devices.getUserMedia({ video: SIZE, audio: false });
  } catch (error) {
    const { name, message } = error as DOMException;
    throw new CameraProblem(REASONS[name] ?? `The camera cannot be opened: ${message}`);
  }
}

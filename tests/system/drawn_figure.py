"""A video of somebody who waves, drawn with discs and capsules: a figure that a finder of bodies takes for one. No picture of a person."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Point = tuple[float, float]
SKIN, SHIRT, TROUSERS, SHOE, HAIR = (224, 172, 140), (60, 90, 160), (50, 50, 60), (30, 25, 25), (60, 40, 25)
TALL = 1.85  # metres that the picture's height holds


class Canvas:
    """A picture [H, W, 3] that capsules are painted on; places in metres from the middle of the floor, y up."""

    def __init__(self, width: int, height: int) -> None:
        self.picture: Picture = np.empty((height, width, 3), np.float32)
        self.picture[:] = np.linspace(200, 170, height)[:, None, None]
        self.picture[int(0.88 * height) :] = (120, 105, 90)
        self._scale = 0.9 * height / TALL
        self._middle, self._floor = width / 2, 0.95 * height

    def capsule(self, a: Point, b: Point, radii: Point, colour: tuple[int, int, int]) -> None:
        """Paint a limb from a to b, round and lit from above, as thick as its ends' radii."""
        (ax, ay), (bx, by) = ((self._middle + x * self._scale, self._floor - y * self._scale) for x, y in (a, b))
        ra, rb = (r * self._scale for r in radii)
        wide, (height, width, _) = max(ra, rb) + 1, self.picture.shape
        rows = slice(max(0, int(min(ay, by) - wide)), min(height, int(max(ay, by) + wide) + 1))
        columns = slice(max(0, int(min(ax, bx) - wide)), min(width, int(max(ax, bx) + wide) + 1))
        y, x = np.mgrid[rows, columns].astype(np.float32)
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 + 1e-6), 0, 1)
        dx, dy, radius = x - (ax + along * (bx - ax)), y - (ay + along * (by - ay)), ra + (rb - ra) * along
        nx, ny = dx / np.maximum(radius, 1), dy / np.maximum(radius, 1)
        nz = np.sqrt(np.maximum(0, 1 - nx * nx - ny * ny))
        light = np.clip(0.45 + 0.55 * (0.75 * nz - 0.35 * nx - 0.45 * ny), 0.25, 1.05)[..., None]
        covered = np.clip(radius - np.hypot(dx, dy) + 0.5, 0, 1)[..., None]
        some = self.picture[rows, columns]
        some[:] = some * (1 - covered) + covered * light * np.array(colour, np.float32)


def waving(seconds: float, width: int = 320, height: int = 240) -> Picture:
    """Draw somebody who faces the camera and waves with the right hand, which is on the picture's left: [H, W, 3], 0 to 255."""
    canvas = Canvas(width, height)
    paint = canvas.capsule
    for side in (-1, 1):
        paint((side * 0.10, 0.92), (side * 0.12, 0.50), (0.095, 0.07), TROUSERS)
        paint((side * 0.12, 0.50), (side * 0.13, 0.10), (0.065, 0.045), TROUSERS)
        paint((side * 0.13, 0.05), (side * 0.17, 0.03), (0.05, 0.045), SHOE)
    paint((-0.10, 1.00), (0.10, 1.00), (0.10, 0.10), TROUSERS)
    for half, up, thick in ((0.09, 1.12, 0.11), (0.11, 1.25, 0.115), (0.14, 1.38, 0.08)):
        paint((-half, up), (half, up), (thick, thick), SHIRT)
    paint((0, 1.40), (0, 1.52), (0.055, 0.05), SKIN)
    hand = (-0.40 + 0.14 * math.sin(2 * math.pi * 1.2 * seconds), 1.52)
    for shoulder, elbow, wrist, tip in (
        ((0.19, 1.39), (0.25, 1.12), (0.27, 0.88), (0.27, 0.78)),
        ((-0.19, 1.39), (-0.36, 1.28), hand, (1.02 * hand[0], 1.62)),
    ):
        paint(shoulder, elbow, (0.06, 0.05), SHIRT)
        paint(elbow, wrist, (0.045, 0.035), SKIN)
        paint(wrist, tip, (0.045, 0.03), SKIN)
    _face(canvas)
    return np.clip(canvas.picture, 0, 255)


def _face(canvas: Canvas) -> None:
    paint = canvas.capsule
    paint((0, 1.62), (0, 1.68), (0.095, 0.10), SKIN)
    paint((-0.07, 1.74), (0.07, 1.74), (0.055, 0.055), HAIR)
    for side in (-1, 1):
        paint((side * 0.098, 1.66), (side * 0.098, 1.62), (0.018, 0.018), SKIN)
        paint((side * 0.038 - 0.012, 1.665), (side * 0.038 + 0.012, 1.665), (0.011, 0.011), (245, 245, 245))
        paint((side * 0.038, 1.665), (side * 0.038, 1.665), (0.008, 0.008), (20, 20, 20))
        paint((side * 0.038 - 0.02, 1.69), (side * 0.038 + 0.02, 1.692), (0.005, 0.005), HAIR)
    paint((0, 1.655), (0, 1.625), (0.010, 0.016), (205, 150, 120))
    paint((-0.03, 1.585), (0.03, 1.585), (0.008, 0.008), (150, 60, 60))


def write_video(path: Path, frames: int = 25, hz: int = 30) -> Path:
    """Write a wave, by default once to and fro, as YUV4MPEG2, which Chromium's fake camera plays in a loop."""
    pictures = [waving(n / hz) for n in range(frames)]
    height, width, _ = pictures[0].shape
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{hz}:1 Ip A1:1 C420mpeg2\n".encode())
        for picture in pictures:
            red, green, blue = np.moveaxis(picture, -1, 0)
            luma = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
            chroma = (128 - 0.148 * red - 0.291 * green + 0.439 * blue, 128 + 0.439 * red - 0.368 * green - 0.071 * blue)
            halves = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in chroma]
            file.write(b"FRAME\n" + b"".join(plane.astype(np.uint8).tobytes() for plane in (luma, *halves)))
    return path

"""`python -m indrnn.model.detection.joining OUT.npz`: streams to learn detection from, made of UTD-MHAD's clips for want of uncut ones.

A stream is a subject's clips in a random order, and between them standing (or sitting, where a clip ends so), transitions, and now and
then a walk of somebody of NW-UCLA. The clips are marked, everything else is nothing. A clip's mark is the first frame by which the joints
have made `PART` of all their way in it: the motion can be told by then, and is not over.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from indrnn.frames import layouts
from indrnn.model.data import bodies, clips
from indrnn.model.data.augment import resize, rotation
from indrnn.model.data.clips import Clip

Frames = NDArray[np.float32]

PART = 0.6  # of a motion's way; after half of a clip's frames the network of the bundle `action` names 95.6 % of them rightly
TREMBLE = 0.25  # of the joints' speeds in a clip, as a quantile: the sensor's, of bodies that stand still
NEAR = 0.15  # metres: poses that a transition may join without being a motion itself; sitting and standing are 0.22 to 0.26 apart
STILL = 6  # frames at a clip's end that standing is made of, there and back
IDLE = (20, 150)  # frames between two motions, the least and the most
WALKS = 0.35  # odds of a walk between two motions
SHORTEST_WALK = 25
LARGEST_RISE = 0.6  # metres that a walk's hips may go up or down: others are seen from a tilted camera
LARGEST_STEP = 0.3  # metres a frame that a walk's joints may make: in others the tracker leaps
STREAM = 10  # motions of a stream


@dataclass(frozen=True)
class Walks:
    """Walks [T, J, 3] in the clips' joint order, and the subject of each."""

    x: list[Frames]
    subjects: list[int]

    def of(self, part: int, parts: int) -> list[Frames]:
        """Return those of every `parts`-th subject, from the `part`-th on, so that nobody walks for two of them."""
        known = sorted(set(self.subjects))
        return [x for x, s in zip(self.x, self.subjects, strict=True) if known.index(s) % parts == part]


def mark(x: Frames) -> int:
    """Return the frame of x [T, J, 3] by which the joints have made PART of their way; the last one, where they make none."""
    if len(x) == 1:
        return 0
    speed = np.linalg.norm(np.diff(x, axis=0), axis=2).mean(1)
    way = np.cumsum(np.clip(speed - np.quantile(speed, TREMBLE), 0, None))
    return 1 + int(np.searchsorted(way, PART * way[-1])) if way[-1] > 0 else len(x) - 1


def turn_of(pose: Frames, across: Sequence[tuple[int, int]]) -> float:
    """Return the angle about y that a body [J, 3] is turned by, told from the line across its shoulders and hips."""
    line: Frames = np.stack([pose[right] - pose[left] for left, right in across]).sum(0)
    return float(np.arctan2(-line[2], line[0]))


def turned(x: Frames, angle: float, centre: Frames) -> Frames:
    """x [..., 3] turned about the vertical through centre [3]."""
    return ((x - centre) @ rotation(angle, 0, 0).T + centre).astype(np.float32)


def idle(still: Frames, length: int, rng: Generator) -> Frames:
    """Return `length` frames of somebody who stands as in still [n, J, 3]: there and back, leaning and fidgeting by centimetres."""
    there_and_back = np.concatenate([np.arange(len(still)), np.arange(len(still) - 1, -1, -1)])
    x: Frames = still[there_and_back[np.arange(length) % len(there_and_back)]]
    height = x[:, :, 1:2] - x[:, :, 1:2].min(1, keepdims=True)  # the feet stay
    lean = slow(length, 3, rng)[:, None] * np.array([0.02, 0.002, 0.02], np.float32) * height
    fidget = np.stack([slow(length, 3, rng) for _ in range(x.shape[1])], 1) * np.float32(rng.uniform(0, 0.015))
    swayed: Frames = x + (lean + fidget * np.minimum(height, 1)) * np.minimum(1, np.arange(length, dtype=np.float32) / 10)[:, None, None]
    return swayed


def slow(length: int, columns: int, rng: Generator) -> Frames:
    """Return smooth noise [length, columns] of deviation 1, which turns about once in two seconds."""
    t = np.arange(length)[:, None] / clips.HZ
    waves = [np.sin(2 * np.pi * (rng.uniform(0.1, 0.8, columns) * t + rng.random(columns))) for _ in range(4)]
    noise: Frames = (np.sum(waves, 0) / np.sqrt(2)).astype(np.float32)
    return noise


def transition(start: Frames, end: Frames, length: int, body: bodies.Body, rng: Generator) -> Frames:
    """Return `length` frames from pose start to pose end [J, 3], neither of them included: the body turns, its joints go straight."""
    a, b = start[body.root], end[body.root]
    angle = turn_of(end, body.across) - turn_of(start, body.across)
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    u = np.arange(1, length + 1, dtype=np.float32) / (length + 1)
    u = u * u * (3 - 2 * u)
    poses = [(1 - s) * (turned(start, s * angle, a) - a) + s * (turned(end, (s - 1) * angle, b) - b) + a + s * (b - a) for s in u]
    tremble = rng.normal(0, 0.002, (length, *start.shape))
    return (np.stack(poses) + tremble).astype(np.float32)


def turning_time(start: Frames, end: Frames, body: bodies.Body, rng: Generator) -> int:
    """Return how many frames a transition takes: longer where the body has to turn."""
    angle = abs((turn_of(end, body.across) - turn_of(start, body.across) + np.pi) % (2 * np.pi) - np.pi)
    return int(rng.integers(8, 21) + 15 * angle)


def placed(x: Frames, at: Frames, root: int) -> Frames:
    """x [T, J, 3] moved along the floor, so that its root begins at `at` [3]."""
    way = (at - x[0, root]) * np.array([1, 0, 1], np.float32)
    moved: Frames = x + way
    return moved


def apart(a: Frames, b: Frames, root: int) -> float:
    """Return how far two poses [J, 3] are from each other, root mean square over the joints."""
    return float(np.sqrt((((a - a[root]) - (b - b[root])) ** 2).sum(1).mean()))


@dataclass(frozen=True)
class Joined:
    """A stream: frames [T, J, 3]; of each motion its class, first frame, the frame after its last, and its mark."""

    x: Frames
    events: list[tuple[int, int, int, int]]


def join(motions: Sequence[Clip], walks: Sequence[Frames], body: bodies.Body, rng: Generator) -> Joined:
    """Return one stream of motions of one person [T, 1, J, 3], in this order."""
    first = motions[0].x[:, 0]
    pieces = [idle(first[:STILL], int(rng.integers(*IDLE)), rng)]
    events = []

    def go_to(x: Frames) -> Frames:
        last = pieces[-1][-1]
        x = placed(x, last[body.root], body.root)
        pieces.append(transition(last, x[0], turning_time(last, x[0], body, rng), body, rng))
        pieces.append(x)
        return x

    for motion in motions:
        x = go_to(motion.x[:, 0])
        start = sum(map(len, pieces[:-1]))
        events.append((motion.label, start, start + len(x), start + mark(x)))
        pieces.append(idle(x[: -STILL - 1 : -1], int(rng.integers(*IDLE)), rng))
        sits = apart(x[-1], first[0], body.root) > NEAR
        if walks and not sits and rng.random() < WALKS:
            walk = walks[int(rng.integers(len(walks)))]
            go_to(turned(walk, rng.uniform(-np.pi, np.pi), walk[0, body.root]))
    return Joined(np.concatenate(pieces).astype(np.float32), events)


def ordered(motions: Sequence[Clip], root: int, rng: Generator) -> list[Clip]:
    """Return the clips in a random order, in which each begins near the pose that the last one ended in; what fits nowhere is left out."""
    left = [motions[i] for i in rng.permutation(len(motions))]
    out = [next(c for c in left if apart(c.x[0, 0], c.x[-1, 0], root) <= NEAR)]
    while True:
        left = [c for c in left if c is not out[-1]]
        pose = out[-1].x[-1, 0]
        following = next((c for c in left if apart(pose, c.x[0, 0], root) <= NEAR), None)
        if following is None:
            return out
        out.append(following)


def streams_of(motions: Sequence[Clip], walks: Sequence[Frames], body: bodies.Body, rng: Generator) -> list[Joined]:
    """Return streams of a person's clips, each of which comes once; nobody is left sitting at a stream's end."""
    order, out, begin = ordered(motions, body.root, rng), [], 0
    standing = order[0].x[0, 0]
    for i in range(1, len(order) + 1):
        ends = i == len(order) or (i - begin >= STREAM and apart(order[i - 1].x[-1, 0], standing, body.root) <= NEAR)
        if ends:
            out.append(join(order[begin:i], walks, body, rng))
            begin = i
    return out


def walks_of(file: str, body: bodies.Body, name: str = "walk around") -> Walks:
    """Return the walks of NW-UCLA in UTD-MHAD's joint order. Raises DataMissingError, ClipFileError."""
    found = clips.read(file)
    order = [layouts.KINECT20.index(joint) for joint in layouts.UTD20]
    some = [c for c in found.clips if found.classes[c.label] == name and len(c.x) >= SHORTEST_WALK]
    some = [c for c in some if np.ptp(c.x[:, 0, 0, 1]) <= LARGEST_RISE and c.x.any((2, 3)).all()]
    some = [c for c in some if np.linalg.norm(np.diff(c.x[:, 0], axis=0), axis=2).max() <= LARGEST_STEP]
    return Walks([c.x[:, 0, order] for c in some], [c.subject for c in some])


def bones_of(x: Frames, body: bodies.Body) -> NDArray[np.float32]:
    """Return the middle length [J] of each joint's bone in x [T, J, 3]; the root's is 1."""
    lengths: NDArray[np.float32] = np.median(np.linalg.norm(x - x[:, list(body.parents)], axis=2), 0).astype(np.float32)
    lengths[body.root] = 1
    return np.maximum(lengths, 1e-3)


def made(rounds: int, seed: int, subjects: Sequence[int] = ()) -> dict[str, Any]:
    """Return the arrays of a file of streams (model/detection/streams.py): each subject's clips `rounds` times, in as many orders.

    A subject's streams depend on the seed and the subject alone. The walkers of the training subjects, of subject 7 among them, and of the
    test subjects are other people. Raises DataMissingError, ClipFileError.
    """
    found = clips.read()
    body = bodies.of(layouts.UTD20, np.concatenate([c.x[:, 0] for c in found.clips[::10]]))
    walks = walks_of("skeleton/nwucla.npz", body)
    names = subjects or sorted({c.subject for c in found.clips})
    x: list[Frames] = []
    events: list[tuple[int, ...]] = []
    whose: list[int] = []
    for subject in names:
        rng = np.random.default_rng([seed, subject])
        own = [c for c in found.clips if c.subject == subject]
        sizes = bones_of(np.concatenate([c.x[:, 0] for c in own]), body)
        part = 0 if subject in clips.SUBJECTS["test"] else 1 if subject == 7 else 2
        walkers = [resize(w, sizes / bones_of(w, body), body) for w in walks.of(part, 3)]
        for _ in range(rounds):
            for stream in streams_of(own, walkers, body, rng):
                events += [(len(x), *event) for event in stream.events]
                x.append(stream.x)
                whose.append(subject)
    columns = dict(zip(("event_stream", "event_label", "event_start", "event_end", "event_point"), np.array(events).T, strict=True))
    off = np.cumsum([0, *map(len, x)])
    told = {"classes": np.array(found.classes), "joint_names": np.array(layouts.UTD20), "hz": clips.HZ}
    return {"x": np.concatenate(x), "off": off, **columns, "subject": np.array(whose), **told}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m indrnn.model.detection.joining", description="Join UTD-MHAD's clips to marked streams."
    )
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--rounds", type=int, default=3, help="how often each clip comes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subjects", type=int, nargs="*", default=[], help="default: all eight")
    args = parser.parse_args()
    arrays = made(args.rounds, args.seed, args.subjects)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.out, **arrays)
    minutes = len(arrays["x"]) / clips.HZ / 60
    print(f"{args.out}: {len(arrays['off']) - 1} streams, {minutes:.0f} minutes, {len(arrays['event_label'])} motions, seed {args.seed}")


if __name__ == "__main__":
    main()

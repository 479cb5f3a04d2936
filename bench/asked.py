"""What bench/serve.py was asked for, and what its rows send."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.server import ROOT
from indrnn.export.bundle import Bundle, read

MODEL = "action"
MANY = 64  # sessions at a time, and rows of a full batch
OPEN = {"type": "open"}


@dataclass
class Asked:
    """What was asked for on the command line, and what one row leaves for another."""

    seconds: float
    rounds: int
    until: float
    """time.monotonic() after which no round begins but a row's first"""
    folder: Path | None
    peer: str | None
    load_tool: Path | None
    library_path: Path | None
    sessions: int
    most: int
    processes: int
    idle: tuple[int, int, int]
    """how many sessions there are each time that memory is looked at"""
    against: Path | None = None
    """another checkout, whose live sessions are measured too"""
    peer_at_many: float | None = None
    """the peer's steps per second with MANY sequences at a time"""

    def turns(self) -> Iterator[int]:
        """The rounds; the first whatever the time."""
        for i in range(self.rounds):
            if i and time.monotonic() > self.until:
                return
            yield i

    @cached_property
    def bundle(self) -> Bundle:
        return read(ROOT / "bundles" / MODEL / "1")

    @property
    def state_bytes(self) -> int:
        return 4 * self.bundle.manifest.state_size


def frames(n: int) -> list[object]:
    """A clip [n][J][3] in metres: somebody waves, over and over. What is no body is told so in each reply, which takes time of its own."""
    wave = json.loads((ROOT / "examples" / "wave.json").read_text())["sequences"][0]
    return [wave[i % len(wave)] for i in range(n)]

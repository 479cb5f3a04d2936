"""What came in one turn of the event loop, queued together: one lock and one wake-up of the engine thread, and fuller batches.

Sixty-four requests that were queued one by one ran as many small batches, each with a commit of its own.
"""

import asyncio

from indrnn.service.engine.batcher import Batcher
from indrnn.service.engine.jobs import Job


class Turn:
    """Everything here runs on the event loop's thread."""

    def __init__(self) -> None:
        self._jobs: dict[Batcher, list[Job]] = {}

    def add(self, batcher: Batcher, job: Job) -> None:
        """Add a job to queue when the turn is over; its sink is told, also where there is no place for it."""
        if not self._jobs:
            asyncio.get_running_loop().call_soon(self._submit)
        self._jobs.setdefault(batcher, []).append(job)

    def _submit(self) -> None:
        waiting, self._jobs = self._jobs, {}
        for batcher, jobs in waiting.items():
            batcher.submit_each(jobs)

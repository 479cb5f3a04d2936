"""What came in one turn of the event loop is queued at once."""

import asyncio
from typing import Any

from indrnn.service.engine.jobs import Job, unset
from indrnn.service.engine.turn import Turn


class Counting:
    """A batcher that notes what it is given together."""

    def __init__(self) -> None:
        self.given: list[list[Job]] = []

    def submit_each(self, jobs: list[Job]) -> None:
        self.given.append(jobs)


async def test_jobs_of_one_turn_reach_their_batchers_together_and_in_order_and_the_next_turns_by_themselves() -> None:
    turn = Turn()
    one: Any = Counting()
    other: Any = Counting()
    jobs = [Job(unset) for _ in range(4)]
    turn.add(one, jobs[0])
    turn.add(other, jobs[1])
    turn.add(one, jobs[2])
    assert one.given == other.given == []
    await asyncio.sleep(0)
    turn.add(one, jobs[3])
    await asyncio.sleep(0)
    assert one.given == [[jobs[0], jobs[2]], [jobs[3]]]
    assert other.given == [[jobs[1]]]

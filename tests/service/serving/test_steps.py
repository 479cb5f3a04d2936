"""What came in one turn of the event loop is queued at once."""

import asyncio
from collections.abc import Sequence
from typing import Any

from indrnn.service.engine.requests import Asked, DeleteRequest
from indrnn.service.serving.steps import Tickets


class Counting:
    """A port that notes what it is given together."""

    def __init__(self) -> None:
        self.given: list[list[Asked]] = []

    def submit(self, asked: Sequence[Asked], whole: bool = False) -> None:
        self.given.append(list(asked))


async def test_jobs_of_one_turn_reach_their_engines_together_and_in_order_and_the_next_turns_by_themselves() -> None:
    tickets = Tickets()
    one: Any = Counting()
    other: Any = Counting()
    jobs = [Asked(tickets.issue(lambda reply, states: None), DeleteRequest(str(i), "")) for i in range(4)]
    tickets.submit_soon(one, jobs[0])
    tickets.submit_soon(other, jobs[1])
    tickets.submit_soon(one, jobs[2])
    assert one.given == other.given == []
    await asyncio.sleep(0)
    tickets.submit_soon(one, jobs[3])
    await asyncio.sleep(0)
    assert one.given == [[jobs[0], jobs[2]], [jobs[3]]]
    assert other.given == [[jobs[1]]]

"""Texts drawn without a session, on the engine thread that everybody shares."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import ALPHABET, Asked, Bench, held, make

from indrnn.service.engine.requests import Drawn, Exact, Prompted, Text
from indrnn.service.engine.runtime import PIECE
from indrnn.service.errors import EngineFailed, Overloaded
from indrnn.service.session.machine import Reason, Refused, Sampling
from indrnn.service.session.sampling import log_softmax


def complete(bench: Bench, prompt: list[int], chars: int, seeds: tuple[int, ...] = (1,), top: int = 0) -> tuple[Asked, list[Asked]]:
    texts = [Asked() for _ in seeds]
    wanted = tuple(Text(bench.ticket(one), Sampling(chars, 1.0, 1.0, seed, ())) for seed, one in zip(seeds, texts, strict=True))
    return bench.ask(content=Exact(np.array(prompt, np.int64)), texts=wanted, top=top), texts


def text_of(asked: Asked) -> str:
    replies = asked.wait(lambda r: bool(r) and (isinstance(r[-1], Refused) or r[-1].done is not None))
    assert all(isinstance(r, Drawn) for r in replies), replies
    return "".join(r.char for r in replies)


def test_a_text_is_the_one_that_a_session_would_generate(bench: Bench) -> None:
    ident = bench.open()
    bench.feed(ident, 1, [0, 1, 2]).one()
    generated = bench.generate(ident, 2, 20, seed=5)
    generated.last()
    prompt, (text,) = complete(bench, [0, 1, 2], 20, seeds=(5,))
    assert isinstance(prompt.one(), Prompted)
    assert text_of(text) == "".join(r.char for r in generated.replies)
    assert text.replies[-1].done is Reason.LENGTH


def test_texts_of_one_prompt_share_its_reading_and_are_as_if_alone(bench: Bench) -> None:
    alone = [text_of(complete(bench, [0, 1], 30, seeds=(seed,))[1][0]) for seed in (1, 2, 3)]
    bench.engine.runs.clear()
    _, together = complete(bench, [0, 1], 30, seeds=(1, 2, 3))
    assert [text_of(t) for t in together] == alone
    assert len(set(alone)) == 3
    rows = [len(r.x) for run in bench.engine.runs for r in run]
    assert rows.count(2) == 1
    assert rows.count(1) == 90


def test_an_empty_prompt_begins_a_sequence_and_no_draws_only_read(bench: Bench) -> None:
    _, (text,) = complete(bench, [], 5)
    assert len(text_of(text)) == 5
    prompt, none = complete(bench, [1, 1], 5, seeds=())
    assert np.shape(prompt.one().scores.logprobs) == (2,)
    assert none == []
    assert bench.waiting == 0


def test_rankings_are_of_what_was_expected_before_each_character(bench: Bench) -> None:
    prompt, (text,) = complete(bench, [2, 0] * PIECE, 4, top=2)
    ranked = prompt.one().ranked
    assert [len(r.symbols) for r in ranked] == [PIECE, PIECE]
    scores = prompt.replies[0].scores.logprobs
    assert ranked[0].logprobs[0] == pytest.approx(-np.log(3), abs=1e-6)  # a uniform first guess
    for t, symbol in ((1, 0), (2, 2), (PIECE, 2)):
        ranking = ranked[t // PIECE]
        at = np.flatnonzero(ranking.symbols[t % PIECE] == symbol)
        assert (
            (ranking.logprobs[t % PIECE][at] == pytest.approx(scores[t], abs=1e-6))
            if len(at)
            else scores[t] <= ranking.logprobs[t % PIECE].min()
        )
    text_of(text)
    state = np.zeros(6, np.float32)
    for value in [2, 0] * PIECE:
        state = bench.engine._one(np.array([value]), state)[1]
    best = np.argsort(-state[3:], kind="stable")[:2]
    assert text.replies[0].ranking.symbols[0].tolist() == best.tolist()
    assert text.replies[0].ranking.logprobs[0] == pytest.approx(log_softmax(state[3:])[best], abs=1e-5)
    assert text.replies[0].char in ALPHABET


def test_whoever_leaves_takes_the_rest_along_and_gives_the_places_back(bench: Bench) -> None:
    _, (mine, other) = complete(bench, [0], 1_000_000, seeds=(1, 2))
    mine.wait(lambda r: len(r) > 3)
    bench.withdraw(mine)
    length = len(other.replies)
    other.wait(lambda r: len(r) > length + 3)
    bench.withdraw(other)
    end = time.monotonic() + 20
    while bench.waiting or bench.loop._runner.ready:
        assert time.monotonic() < end, "the draws go on for nobody"
    count = len(bench.engine.runs)
    bench.feed(bench.open(), 1, [0]).one()
    assert len(bench.engine.runs) == count + 1


def test_every_text_takes_a_place_in_the_queue(tmp_path: Path) -> None:
    bench = make(tmp_path, max_queue=4)
    try:
        held(bench)
        complete(bench, [0], 3, seeds=(1, 2))
        with pytest.raises(Overloaded):
            complete(bench, [0], 3)
        bench.engine.gate.set()
    finally:
        bench.loop.stop(10)
        bench.store.close()


@pytest.mark.parametrize("when", ["prompt", "text"])
def test_a_failed_run_is_told_to_everybody_who_waits_for_it(bench: Bench, when: str) -> None:
    bench.engine.fail = when == "prompt"
    prompt, texts = complete(bench, [0] * 5, 1_000_000, seeds=(1, 2))
    if when == "text":
        texts[0].wait(lambda r: len(r) > 2)
        bench.engine.fail = True
    told: list[Any] = [t.wait(lambda r: isinstance(r[-1], Refused) if r else False)[-1] for t in texts]
    assert all(isinstance(r.error, EngineFailed) for r in told)
    assert isinstance(prompt.one(), Refused if when == "prompt" else Prompted)
    assert bench.waiting == 0


def test_a_long_prompt_delays_a_text_by_no_more_than_a_piece_at_a_time(bench: Bench) -> None:
    _, (text,) = complete(bench, [0], 1_000_000)
    text.wait(lambda r: len(r) > 2)
    bench.engine.runs.clear()
    prompt, _ = complete(bench, [0] * PIECE * 8, 1, seeds=())
    prompt.one()
    sizes = [len(r.x) for run in bench.engine.runs for r in run]
    assert max(sizes) == PIECE
    assert sizes.count(1) >= 7
    bench.withdraw(text)

"""The client's core against a made-up server behind a network that loses things at random."""

import json
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from world import World, letter

from indrnn.client.commands import Sleep
from indrnn.client.conversation import Conversation
from indrnn.client.errors import BadInput, DeadlineExceeded, NotFound, ProtocolError, StepConflict, StepGap, Unanswered, Unavailable

EVERYTHING = 10_000


def made(seed: int = 0, faults: int = 0) -> tuple[World, Conversation]:
    return World(Random(seed), faults), Conversation("ws://x/stream/m", {}, None)


def drawn(number: int, length: int) -> str:
    return "".join(letter(number, i) for i in range(length))


steps = st.tuples(st.just("step"), st.text("xyz", min_size=1, max_size=4))
whole = st.tuples(st.just("whole"), st.integers(1, 8))
left = st.tuples(st.just("left"), st.integers(1, 8), st.integers(0, 8))
cancelled = st.tuples(st.just("cancelled"), st.integers(1, 8), st.integers(0, 8))
others = st.sampled_from([("refused",), ("watch",), ("again",)])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.lists(steps | whole | left | cancelled | others, min_size=1, max_size=12))
@example(2494614936, 8, [("left", 3, 1), ("left", 6, 4)])  # a repeat is refused for now, and the cancel behind it answered
def test_whatever_is_lost_every_step_is_applied_once_and_every_character_shown_once(seed: int, faults: int, wishes: list[tuple]) -> None:  # type: ignore[type-arg]
    world, talk = made(seed, faults)
    world.run(talk.open(world.patience()))
    expected: list[str] = []
    for kind, *wish in wishes:
        number = talk.step + 1
        if kind == "step":
            answer = world.run(talk.feed({"text": wish[0]}, None, world.patience()))
            expected.append(wish[0])
            assert (answer.step, answer.position) == (number, world.position)
            assert "".join(c.char for c in answer.chars) == wish[0]
        elif kind == "refused":
            with pytest.raises(BadInput):
                world.run(talk.feed({"text": "bad"}, None, world.patience()))
        elif kind == "watch":
            assert [p.size for p in world.run(talk.watch(True, world.patience()))] == [2]
        elif kind == "again":
            world.cut()
        else:
            emission = world.run(talk.begin({"max_chars": wish[0]}, None, world.patience()))
            assert emission.running is not None
            first = world.characters(emission.running, EVERYTHING if kind == "whole" else wish[1])
            if kind == "left":
                begun = emission.started
                world.run(talk.settle(world.patience()))
                assert begun == (wish[1] > 0)
                expected += [f"generate {number}"] if begun else []
            else:
                if kind == "cancelled":
                    urgent = talk.cancel()
                    if urgent is not None and world.connected:
                        world._take(json.loads(urgent))
                rest = world.characters(emission.running, EVERYTHING)
                assert "".join(c.char for c in first + rest) == emission.text
                expected.append(f"generate {number}")
            if emission.started:
                assert emission.text == drawn(number, len(emission.text)) == world.generate.text  # type: ignore[union-attr]
                assert emission.reason == world.generate.reason  # type: ignore[union-attr]
                assert emission.reason == ("length" if len(emission.text) == wish[0] else "cancelled")
                assert talk.position == world.position
    assert world.history == expected
    assert talk.step == world.step == len(expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.lists(st.text("xyz", min_size=1, max_size=4), min_size=1, max_size=8), st.booleans())
def test_whatever_is_lost_every_event_is_told_once_with_its_step(seed: int, faults: int, texts: list[str], asked: bool) -> None:
    world = World(Random(seed), faults)
    talk = Conversation("ws://x/stream/m", {"events": True} if asked else {}, None)
    for text in texts:
        answer = world.run(talk.feed({"text": text}, None, world.patience()))
        assert [e.start for e in answer.events] == [i for i, c in enumerate(text) if c == "x" and asked]
    assert world.history == texts


def test_a_step_without_an_answer_in_time_is_repeated_by_the_same_call_and_bars_others() -> None:
    world, talk = made()
    world.run(talk.feed({"text": "x"}, None, world.patience()))
    world.down = True
    world.cut()
    before = world.now
    with pytest.raises(DeadlineExceeded) as caught:
        world.run(talk.feed({"text": "y"}, None, world.patience(30)))
    assert 30 <= world.now - before < 33
    assert isinstance(caught.value.__cause__, ConnectionError)
    world.down = False
    with pytest.raises(Unanswered):
        world.run(talk.feed({"text": "z"}, None, world.patience()))
    with pytest.raises(Unanswered):
        world.run(talk.begin({"max_chars": 1}, None, world.patience()))
    with pytest.raises(Unanswered):
        talk.need_answers()
    assert world.run(talk.feed({"text": "y"}, None, world.patience())).step == 2
    assert world.history == ["x", "y"]


def test_pauses_grow_and_the_number_of_tries_stays_small() -> None:
    world, talk = made()
    world.down = True
    with pytest.raises(DeadlineExceeded):
        world.run(talk.open(world.patience(60)))
    assert 30 < world.connects < 70


def test_a_server_that_stays_busy_is_the_cause_of_the_deadline() -> None:
    world, talk = made()
    world.run(talk.open(world.patience()))
    world.faults, world.rate = EVERYTHING, 1.0
    world.fault = lambda: world.random.random() < 0  # type: ignore[method-assign]
    world._take = lambda message: world._say(type="error", code="overloaded", detail="full", retry_after=3)  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded) as caught:
        world.run(talk.feed({"text": "x"}, None, world.patience(20)))
    assert isinstance(caught.value.__cause__, Unavailable)
    assert (world.connects, world.now) == (1, pytest.approx(20, abs=4))


def test_a_failed_generate_goes_on_with_the_same_call_and_shows_all_of_it() -> None:
    world, talk = made()
    emission = world.run(talk.begin({"max_chars": 6}, None, world.patience(5)))
    assert emission.running is not None
    assert len(world.characters(emission.running, 2)) == 2
    world.down = True
    world.cut()
    with pytest.raises(DeadlineExceeded):
        world.characters(emission.running, 1)
    world.down = False
    with pytest.raises(Unanswered):
        world.run(talk.feed({"text": "x"}, None, world.patience()))
    again = world.run(talk.begin({"max_chars": 6}, None, world.patience(5)))
    assert again.running is not None
    assert "".join(c.char for c in world.characters(again.running, EVERYTHING)) == drawn(1, 6)
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).step == 2


def test_a_failed_generate_that_is_cancelled_is_settled_by_the_next_call() -> None:
    world, talk = made()
    emission = world.run(talk.begin({"max_chars": 6}, None, world.patience(5)))
    assert emission.running is not None
    world.characters(emission.running, 2)
    world.down = True
    world.cut()
    with pytest.raises(DeadlineExceeded):
        world.characters(emission.running, 1)
    world.down = False
    talk.cancel()
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).step == 2
    assert emission.reason == "cancelled"
    assert world.history == ["generate 1", "x"]


def test_a_cancel_behind_a_repeat_that_the_server_cannot_take_now_loses_no_character() -> None:
    world, talk = made()
    emission = world.run(talk.begin({"max_chars": 6}, None, world.patience()))
    assert emission.running is not None
    world.characters(emission.running, 2)
    world.cut()
    take = world._numbered

    def busy_once(kind: str, message: dict[str, object]) -> None:
        world._numbered = take  # type: ignore[method-assign]
        world._say(type="error", code="overloaded", detail="not now")

    world._numbered = busy_once  # type: ignore[method-assign]
    world.run(talk.settle(world.patience()))
    assert world.generate is not None
    assert (emission.text, emission.reason) == (world.generate.text, "cancelled")
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).step == 2


def test_a_cancel_while_a_busy_servers_pause_lasts_goes_with_the_next_try() -> None:
    world, talk = made()
    emission = world.run(talk.begin({"max_chars": 6}, None, world.patience()))
    assert emission.running is not None
    world.characters(emission.running, 2)
    world.cut()
    take = world._numbered
    world._numbered = lambda kind, message: world._say(type="error", code="overloaded", detail="not now")  # type: ignore[method-assign]
    outcome = None
    while not isinstance(command := emission.running.send(outcome), Sleep) or not world.connected:  # the pause that follows the refusal
        outcome = world.perform(command)
    world._numbered = take  # type: ignore[method-assign]
    assert talk.cancel() is None
    world.characters(emission.running, EVERYTHING)
    assert world.generate is not None
    assert (emission.text, emission.reason) == (world.generate.text, "cancelled")


def test_the_same_wish_after_a_generate_that_was_left_is_another_generate() -> None:
    world, talk = made()
    for number in (1, 2):
        emission = world.run(talk.begin({"max_chars": 6}, None, world.patience()))
        assert emission.running is not None
        assert [c.char for c in world.characters(emission.running, 2)] == list(drawn(number, 2))
    assert world.history == ["generate 1", "generate 2"]


def test_a_resumed_session_goes_on_where_it_stands_and_tells_what_was_cut() -> None:
    world, talk = made()
    world.run(talk.feed({"text": "xy"}, None, world.patience()))
    emission = world.run(talk.begin({"max_chars": 6}, None, world.patience()))
    assert emission.running is not None
    world.characters(emission.running, 3)
    world.cut()
    later = Conversation("ws://x/stream/m", {}, "s")
    world.run(later.open(world.patience()))
    assert later.pending is not None
    assert (later.step, later.pending.step) == (2, 2)
    assert later.pending.text == world.generate.text  # type: ignore[union-attr]
    goes_on = world.run(later.begin({"max_chars": 6}, later.pending.step, world.patience()))
    assert goes_on.running is not None
    assert "".join(c.char for c in world.characters(goes_on.running, EVERYTHING)) == drawn(2, 6)


def test_another_clients_steps_are_told_as_conflict_and_gap_and_leave_the_number_free() -> None:
    world, talk = made()
    world.run(talk.feed({"text": "x"}, None, world.patience()))
    other = Conversation("ws://x/stream/m", {}, "s")
    world.run(other.feed({"text": "theirs"}, None, world.patience()))
    with pytest.raises(StepConflict):
        world.run(talk.feed({"text": "mine"}, None, world.patience()))
    world.run(other.feed({"text": "more"}, None, world.patience()))
    with pytest.raises(StepGap) as caught:
        world.run(talk.feed({"text": "mine"}, None, world.patience()))
    assert (caught.value.expected_step, caught.value.code, caught.value.field) == (4, "step_gap", "step")
    assert world.run(talk.feed({"text": "mine"}, caught.value.expected_step, world.patience())).step == 4
    assert world.history == ["x", "theirs", "more", "mine"]


@pytest.mark.parametrize("raw", ["[1]", "x", '{"type": "watching"}', '{"type": "result", "step": 9, "position": 1}', '{"type": "result"}'])
def test_what_is_no_answer_is_a_protocol_error_and_drops_the_connection(raw: str) -> None:
    world, talk = made()
    world.run(talk.open(world.patience()))
    give, world._give = world._give, lambda timeout: raw  # type: ignore[method-assign]
    with pytest.raises(ProtocolError):
        world.run(talk.feed({"text": "x"}, None, world.patience()))
    world._give = give  # type: ignore[method-assign]
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).step == 1
    assert world.history == ["x"]


def test_an_error_to_open_is_raised() -> None:
    world, talk = made()
    world._take = lambda message: world._say(type="error", code="unknown_session", detail="there is none")  # type: ignore[method-assign]
    with pytest.raises(NotFound):
        world.run(talk.open(world.patience()))


@pytest.mark.parametrize(("frames", "code"), [([[float("nan")]], "not_finite"), (object(), "invalid_input")])
def test_what_json_does_not_know_is_refused_before_it_is_sent(frames: object, code: str) -> None:
    world, talk = made()
    with pytest.raises(BadInput) as caught:
        world.run(talk.feed({"frames": frames}, None, world.patience()))
    assert caught.value.code == code
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).step == 1


def test_neurons_are_watched_also_on_the_next_connection() -> None:
    world, talk = made()
    world.run(talk.watch(True, world.patience()))
    world.cut()
    states = world.run(talk.feed({"text": "x"}, None, world.patience())).states
    assert states is not None
    assert (states.data, tuple(states.shape)) == (bytes(4), (1, 2))
    world.run(talk.watch(False, world.patience()))
    assert world.run(talk.feed({"text": "x"}, None, world.patience())).states is None

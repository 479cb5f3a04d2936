"""Stories: an independent reader answers every question from the facts that a story names, and no kept pair is in training."""

from random import Random

import numpy as np
import pytest

from indrnn.model.data.texts import stories
from indrnn.model.data.texts.stories import OBJECTS, PEOPLE, PLACES, WIDTH, WORDS, Story, draw, kept, numbers, tell

MANY = 150


def read(sentences: list[str], whole: bool = True) -> tuple[dict[str, str], dict[str, str], list[tuple[str, str]]]:
    """Where everybody is, who holds what, and every pair of somebody or something and a place that there ever was."""
    place: dict[str, str] = {}
    holder: dict[str, str] = {}
    pairs = []
    for sentence in sentences:
        words = sentence.split()
        who, verb, last = words[0], words[1], words[-1]
        if who not in PEOPLE:
            continue
        if last in PLACES and verb in ("walked", "hurried", "came"):
            place[who] = last
        elif verb in ("took", "lifted"):
            assert last not in holder or not whole, "nobody takes what another has"
            holder[last] = who
        elif verb in ("put", "let"):
            assert holder.pop(words[3], None) == who or not whole
        pairs += [(who, last)] if last in PLACES else []  # gone to, or spoken of
        pairs += [(what, place[h]) for what, h in holder.items() if h in place]
    return place, holder, pairs


def answer(story: Story, sentences: list[str]) -> str | None:
    place, holder, _ = read(sentences, whole=False)
    asked = story.question.split()[-2]
    return place.get(holder.get(asked, "") if asked in OBJECTS else asked)


def told(facts: int, part: str) -> list[Story]:
    rng = Random(f"{part} {facts}")
    return [tell(rng, facts, part) for _ in range(MANY)]


def part_of(name: str, place: str) -> str | None:
    kind, names = ("person", PEOPLE) if name in PEOPLE else ("object", OBJECTS)
    return kept(kind, names.index(name), PLACES.index(place))


@pytest.mark.parametrize("facts", [1, 2])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_question_is_answered_by_the_whole_story_and_by_its_facts_alone(facts: int, part: str) -> None:
    for story in told(facts, part):
        assert 10 <= len(story.sentences) <= 50
        assert len(story.facts) == facts
        assert answer(story, list(story.sentences)) == story.answer
        assert answer(story, [story.sentences[i] for i in story.facts]) == story.answer


def test_one_fact_less_leaves_a_question_on_two_without_its_answer() -> None:
    rest = [[answer(s, [x for i, x in enumerate(s.sentences) if i != fact]) == s.answer for fact in s.facts] for s in told(2, "train")]
    assert np.mean(rest) < 0.25, "an earlier sentence may say the same"


@pytest.mark.parametrize("facts", [1, 2])
def test_pairs_that_are_kept_are_nowhere_in_training_and_all_that_is_asked_elsewhere(facts: int) -> None:
    for part in ("train", "val", "test"):
        for story in told(facts, part):
            pairs = read(list(story.sentences))[2]
            assert {part_of(*pair) for pair in pairs} <= {None, part} if part != "train" else {part_of(*p) for p in pairs} <= {None}
            assert part_of(story.question.split()[-2], story.answer) == (None if part == "train" else part)
    for kind, names in (("person", PEOPLE), ("object", OBJECTS)):
        for i in range(len(names)):
            assert sorted(filter(None, (kept(kind, i, p) for p in range(len(PLACES))))) == ["test", "val"]


def test_the_world_is_as_large_as_it_says_and_tells_things_that_nobody_asks() -> None:
    every = " ".join(s for story in told(2, "train") for s in (*story.sentences, story.question)).split()
    assert {*PEOPLE, *PLACES, *OBJECTS} < set(every) <= set(WORDS)
    assert min(len(PEOPLE), len(PLACES)) >= 6
    assert len(OBJECTS) >= 8
    idle = [s for story in told(1, "train") for s in story.sentences if s.split()[1] in ("sang", "is", "rained", "bell", "spoke", "looked")]
    assert len(idle) > 0.2 * sum(len(s.sentences) for s in told(1, "train"))


def test_the_same_stories_come_each_time_and_parts_differ() -> None:
    one, again, other = draw(5, 2, "val"), draw(5, 2, "val"), draw(5, 2, "test")
    for name in ("told", "lengths", "asked", "answers"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert (one.told != other.told).any()


def test_numbers_are_places_in_the_list_of_words_and_nothing_stands_past_an_end() -> None:
    assert WORDS[0] == stories.QUESTION
    assert len(set(WORDS)) == len(WORDS)
    assert numbers("where is anna ?") == [WORDS.index(w) + 1 for w in ("where", "is", "anna", "?")]
    found = draw(20, 1, "train")
    assert found.told.shape[2] == WIDTH
    for told_, length, asked in zip(found.told, found.lengths, found.asked, strict=True):
        assert (told_[:length, 0] > 0).all()
        assert not told_[length:].any()
        assert not (told_ == 1).any()
        assert (asked == 1).sum() == 1

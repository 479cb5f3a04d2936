"""Stories of who goes where and carries what, made up from a seed, and a question on each: in words and a grammar of our own.

Eight people walk between eight places, take, carry and put down ten objects; a third of the sentences say nothing of either. The question
rests on one sentence (where is Anna: the last that moved her) or on two (where is the apple, which someone carries: who took it last, and
where that person went last). Held back are pairs: of each person and each object one place is kept for validation and one for testing, in
which no story of training ever has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PEOPLE = ("anna", "boris", "clara", "david", "emma", "felix", "greta", "hugo")
PLACES = ("attic", "bakery", "cellar", "garden", "harbour", "library", "market", "stable")
OBJECTS = ("apple", "book", "candle", "easel", "fiddle", "globe", "hammer", "jar", "kettle", "lantern")
MOVES = ("{} walked to the {}", "{} hurried to the {}", "{} came into the {}")
TAKES = ("{} took the {}", "{} lifted the {}")
DROPS = ("{} put the {} down", "{} let the {} go")
SAYS = ("{} sang", "{} is hungry", "it rained outside", "the bell rang twice")
SPEAKS = "{} spoke of the {}"  # of a place where nobody went for it
LOOKS = "{} looked at the {}"  # at an object that nobody took for it
ASKS = "where is {} ?", "where is the {} ?"  # of a person: one sentence tells; of an object: two

SHORTEST, LONGEST = 10, 50  # sentences of a story, the question not counted
WIDTH = 6  # words of a sentence, at most
SHARES = (0.42, 0.2, 0.08, 0.3)  # of moves, takings, puttings down, and sentences that tell nothing
PLACE_OF = {"test": 0, "val": 1}  # which of a person's or an object's places are kept for what
APART = 4  # objects' kept places, moved on from those of people

_FORMS = (*MOVES, *TAKES, *DROPS, *SAYS, SPEAKS, LOOKS, *ASKS)
QUESTION = "?"
WORDS = (QUESTION, *sorted({w for form in _FORMS for w in form.split() if w not in ("{}", QUESTION)} | {*PEOPLE, *PLACES, *OBJECTS}))
"""The words, of which word k has the number k + 1; 0 is none."""


def kept(kind: str, which: int, place: int) -> str | None:
    """Return the part that a pair is kept for, `val` or `test`, None for one that all parts have. kind: person or object."""
    step = (place - which - (APART if kind == "object" else 0)) % len(PLACES)
    return next((part for part, at in PLACE_OF.items() if at == step), None)


@cache
def places_of(kind: str, which: int, part: str) -> tuple[int, ...]:
    """Return the places where a person or an object may be in the stories of a part."""
    return tuple(p for p in range(len(PLACES)) if kept(kind, which, p) in (None, part))


class Story(NamedTuple):
    """Sentences, the question, its answer, and the sentences by their numbers that it rests on, the last told last."""

    sentences: tuple[str, ...]
    question: str
    answer: str
    facts: tuple[int, ...]


class _World:
    """The world of a story: where everybody is, and who has what; every pair of thing and place in it is one that the part may have."""

    def __init__(self, rng: Random, part: str) -> None:
        self.rng, self.part = rng, part
        self.sentences: list[str] = []
        self.place: dict[int, int] = {}  # of people who have moved
        self.moved: dict[int, int] = {}  # the sentence that last moved each
        self.holder: dict[int, tuple[int, int]] = {}  # of an object: who has it, and the sentence that says so
        self.lying = {o: rng.choice(places_of("object", o, part)) for o in range(len(OBJECTS))}

    def _say(self, forms: Sequence[str], *words: str) -> int:
        self.sentences.append(self.rng.choice(forms).format(*words))
        return len(self.sentences) - 1

    def go_on(self) -> None:
        """Let one thing happen, or be said."""
        (kind,) = self.rng.choices(range(len(SHARES)), SHARES)
        who = self.rng.randrange(len(PEOPLE))
        at = self.place.get(who)
        held = [o for o, (h, _) in self.holder.items() if h == who]
        near = [o for o, p in self.lying.items() if p == at]
        if kind == 1 and near:
            self._take(who, self.rng.choice(near))
        elif kind == 2 and held and at is not None:
            self._drop(who, self.rng.choice(held), at)
        elif kind == 3:
            self._chat(who)
        else:
            self._move(who, held)

    def _move(self, who: int, held: Sequence[int]) -> None:
        open_ = set(places_of("person", who, self.part)).intersection(*(places_of("object", o, self.part) for o in held))
        others = sorted(open_ - {self.place.get(who)})
        if not others:
            return self._chat(who)
        self.place[who] = self.rng.choice(others)
        self.moved[who] = self._say(MOVES, PEOPLE[who], PLACES[self.place[who]])

    def _take(self, who: int, what: int) -> None:
        del self.lying[what]
        self.holder[what] = (who, self._say(TAKES, PEOPLE[who], OBJECTS[what]))

    def _drop(self, who: int, what: int, at: int) -> None:
        del self.holder[what]
        self.lying[what] = at
        self._say(DROPS, PEOPLE[who], OBJECTS[what])

    def _chat(self, who: int) -> None:
        kind = self.rng.randrange(3)
        if kind == 0:
            self._say(SAYS, PEOPLE[who])
        elif kind == 1:
            self._say([SPEAKS], PEOPLE[who], PLACES[self.rng.choice(places_of("person", who, self.part))])
        else:
            self._say([LOOKS], PEOPLE[who], self.rng.choice(OBJECTS))

    def askable(self, facts: int) -> list[tuple[str, int, tuple[int, ...]]]:
        """Return what can be asked: question, the place that is its answer, the sentences that tell; of kept pairs where there are some."""
        told: list[tuple[str, int, str, int, tuple[int, ...]]]
        found: list[tuple[str, int, tuple[int, ...]]] = []
        if facts == 1:
            told = [("person", i, PEOPLE[i], p, (self.moved[i],)) for i, p in self.place.items()]
        else:
            told = [("object", o, OBJECTS[o], self.place[h], tuple(sorted((t, self.moved[h])))) for o, (h, t) in self.holder.items()]
        for kind, which, name, place, rests_on in told:
            if kept(kind, which, place) == (None if self.part == "train" else self.part):
                found.append((ASKS[facts - 1].format(name), place, rests_on))
        return found


def tell(rng: Random, facts: int, part: str) -> Story:
    """Return a story of 10 to 50 sentences whose question rests on one fact or two. part: train, val or test.

    A question of `val` or `test` is of a pair that is kept for it.
    """
    while True:
        world, length = _World(rng, part), rng.randint(SHORTEST, LONGEST)
        while len(world.sentences) < length:
            world.go_on()
        if found := world.askable(facts):
            question, place, rests_on = rng.choice(found)
            return Story(tuple(world.sentences), question, PLACES[place], rests_on)


@dataclass(frozen=True)
class Stories:
    """Stories as numbers: told [n, LONGEST, WIDTH] words, 0 past a sentence's or a story's end; lengths, answers [n]; asked [n, WIDTH]."""

    told: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    asked: NDArray[np.uint8]
    answers: NDArray[np.int64]


def numbers(sentence: str) -> list[int]:
    """Return the numbers of a sentence's words."""
    return [WORDS.index(word) + 1 for word in sentence.split()]


def draw(count: int, facts: int, part: str) -> Stories:
    """Return so many stories of a part, the same every time."""
    rng = Random(f"stories {part} {facts}")
    told, asked = np.zeros((count, LONGEST, WIDTH), np.uint8), np.zeros((count, WIDTH), np.uint8)
    lengths, answers = np.zeros(count, np.int64), np.zeros(count, np.int64)
    number = {word: k + 1 for k, word in enumerate(WORDS)}
    for i in range(count):
        story = tell(rng, facts, part)
        for t, sentence in enumerate(story.sentences):
            words = sentence.split()
            told[i, t, : len(words)] = [number[w] for w in words]
        question = story.question.split()
        asked[i, : len(question)] = [number[w] for w in question]
        lengths[i], answers[i] = len(story.sentences), PLACES.index(story.answer)
    return Stories(told, lengths, asked, answers)

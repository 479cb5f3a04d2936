"""Models that read sentences: what clients tell and ask, in words -> rows of word numbers, and the answers in words."""

import re
from collections.abc import Sequence

import numpy as np

from indrnn.export.bundle import Manifest
from indrnn.export.modalities.sentences import QUESTION
from indrnn.service.engine.requests import Content, Exact
from indrnn.service.errors import BadInput, OutOfAlphabet, TooLarge, said
from indrnn.service.serving.modality import PlainModality, Words
from indrnn.service.serving.skeleton import softmax
from indrnn.service.session.machine import Floats, Scores

_WORD = re.compile(r"\?|[^\s?]+")
_ENDS = ".,;:!"  # marks that may follow a word and are not read
LONGEST = 1000  # characters of a sentence: of no model's words so many are one


class SentencesModality(PlainModality):
    """What a service knows of a model that reads sentences. max_steps: sentences of one message; each of them is answered."""

    field = "sentences"
    old_field: str | None = None
    each_step = True

    def __init__(self, manifest: Manifest, max_steps: int) -> None:
        x = next(t for t in manifest.inputs if t.name == "x")
        self.max_steps = max_steps
        self._name, self._width, self._labels = manifest.name, int(x.shape[2]), manifest.labels or ()
        self._numbers = {word: k for k, word in enumerate(manifest.words or (), 1)}

    def read(self, value: object, layout: object, hz: object, field: str) -> Exact:
        """Return a client's sentences as content. Raises BadInput, OutOfAlphabet naming the word, TooLarge."""
        self.check_options(layout, hz)
        if not isinstance(value, list) or not value:
            raise BadInput(f"expected a list of sentences, got {said(value)}", field=field)
        if len(value) > self.max_steps:
            raise TooLarge(f"expected at most {self.max_steps} sentences, got {len(value)}", field=field)
        x: Floats = np.zeros((len(value), self._width), np.float32)
        for t, sentence in enumerate(value):
            row = self._row(sentence, f"{field}[{t}]")
            x[t, : len(row)] = row
        return Exact(x)

    def _row(self, sentence: object, where: str) -> list[int]:
        """Return the numbers of a sentence's words."""
        if not isinstance(sentence, str) or len(sentence) > LONGEST:
            raise BadInput(f"expected a sentence of at most {LONGEST} characters, got {said(sentence)}", field=where)
        words = [stripped for word in _WORD.findall(sentence.lower()) if (stripped := word.rstrip(_ENDS))]
        if not 1 <= len(words) <= self._width:
            raise BadInput(f"expected a sentence of 1 to {self._width} words, got {len(words)}: {said(sentence)}", field=where)
        if words == [QUESTION]:
            raise BadInput(f"expected words beside {QUESTION!r}, got none", field=where)
        for word in words:
            if word not in self._numbers:
                raise OutOfAlphabet(f"the word {said(word)} is not one that the model knows (see GET /models/{self._name})", field=where)
        return [self._numbers[word] for word in words]

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return what is answered to each message, as the native protocols word it: the last question's answer, and those of all questions.

        `sentence` is a question's place in the message, from 0. A message that asks nothing has an empty label with the score 0.
        """
        return [{"predictions": [self._prediction(scores.every, content, top_k)]} for scores, content in answers]

    def _prediction(self, every: Floats, content: Content, top_k: int) -> Words:
        asked = np.flatnonzero((content.x == self._numbers[QUESTION]).any(1))
        odds = softmax(every[asked])
        order = np.argsort(-odds, axis=-1, kind="stable")[:, :top_k]
        told: list[Words] = []
        for t, ks, row in zip(asked.tolist(), order.tolist(), odds.tolist(), strict=True):
            top = [{"label": self._labels[k], "score": row[k]} for k in ks]
            told.append({**top[0], "top": top, "sentence": t})
        last = {name: told[-1][name] for name in ("label", "score", "top")} if told else {"label": "", "score": 0.0, "top": []}
        return {**last, "steps": len(every), "answers": told}

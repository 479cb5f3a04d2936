"""Models that read text: characters as clients send them -> symbols of the alphabet, and answers in words."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indrnn.export.bundle import Manifest
from indrnn.service.engine.requests import Content, Exact
from indrnn.service.errors import BadInput, OutOfAlphabet, TooLarge, said
from indrnn.service.serving.modality import PlainModality, ServedModality, Words
from indrnn.service.session.machine import Scores
from indrnn.service.session.sampling import log_softmax


class TextModality(PlainModality):
    """What a service knows of a model that reads text. max_text: characters of one step."""

    field = "text"
    old_field: str | None = None
    each_step = False

    def __init__(self, manifest: Manifest, max_text: int) -> None:
        self.alphabet = manifest.alphabet or ""
        self.unknown = manifest.unknown_symbol
        """the symbol of what the alphabet lacks, where it has one"""
        self.max_steps = max_text
        self._name, self._title = manifest.name, f"{manifest.name} {manifest.version}"
        points = np.array([ord(c) for c in self.alphabet], np.uint32)
        order = np.argsort(points)
        self._symbols = order[order != self.unknown] if self.unknown is not None else order
        self._points = points[self._symbols]
        """the alphabet's code points in ascending order; _symbols: the symbol of each"""

    def read(self, value: object, layout: object, hz: object, field: str) -> Exact:
        """Return a client's text as content. Raises BadInput, OutOfAlphabet naming the character, TooLarge."""
        symbols, unknown = self._look(value, field)
        if len(unknown):
            i = int(unknown[0])
            assert isinstance(value, str), "it was looked at"
            what = f"character {value[i]!r} (U+{ord(value[i]):04X}) at {i}"
            if {ord(c) for c in unicodedata.normalize("NFC", value)} <= set(self._points.tolist()):
                hint = "it is in Unicode's NFC, with accents and letters in one: send it so"
            else:
                hint = f"see GET /models/{self._name}; " + (
                    '"unknown": "replace" reads it' if self.unknown is not None else "quotes and dashes are plain"
                )
            raise OutOfAlphabet(f"{what} is not in the model's alphabet ({hint})", field=field)
        return Exact(symbols)

    def read_replacing(self, value: object, field: str) -> tuple[Exact, str]:
        """Return a client's text as content, and the characters in it that the alphabet lacks, read as the symbol for them.

        For a model that has one (`replaces`). Raises BadInput, TooLarge.
        """
        symbols, unknown = self._look(value, field)
        assert isinstance(value, str), "it was looked at"
        if self.unknown is not None:
            symbols[unknown] = self.unknown
        return Exact(symbols), "".join(value[i] for i in unknown.tolist())

    def replaces(self, value: object) -> bool:
        """Return whether a client asks to read what the alphabet lacks: the value of `unknown`. Raises BadInput."""
        if value is None:
            return False
        if value != "replace":
            raise BadInput(f'expected "replace" or null, got {said(value)}', field="unknown")
        if self.unknown is None:
            raise BadInput(f"model {self._title} has no symbol for what its alphabet lacks: expected null, got 'replace'", field="unknown")
        return True

    def _look(self, value: object, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the symbols [t] of a text, and the indices of the characters that the alphabet lacks. Raises BadInput, TooLarge."""
        if not isinstance(value, str) or not value:
            raise BadInput(f"expected a text of at least one character, got {said(value)}", field=field)
        if len(value) > self.max_steps:
            raise TooLarge(f"expected at most {self.max_steps} characters, got {len(value)}", field=field)
        sent = np.frombuffer(value.encode("utf-32-le", "surrogatepass"), np.uint32)
        at = np.minimum(np.searchsorted(self._points, sent), len(self._points) - 1)
        return self._symbols[at], np.flatnonzero(self._points[at] != sent)

    def word(self, answers: Sequence[tuple[Scores, Content]], top_k: int) -> list[Words]:
        """Return each answer as the native protocols word it: each character's log-probability before the model saw it, in nats, and the
        likeliest next characters."""
        logits = np.stack([scores.logits for scores, _ in answers])
        if self.unknown is not None:
            logits[:, self.unknown] = -np.inf
        scores = log_softmax(logits)
        order = np.argsort(-scores, axis=-1, kind="stable")[:, : min(top_k, len(self._symbols))]
        values = np.take_along_axis(scores, order, -1).tolist()
        return [
            {
                "chars": self._with_logprobs(content.x.tolist(), read.logprobs.tolist()),
                "next": self._with_logprobs(ks, vs),
            }
            for ks, vs, (read, content) in zip(order.tolist(), values, answers, strict=True)
        ]

    def _with_logprobs(self, symbols: Sequence[int], logprobs: Sequence[float]) -> list[Words]:
        """A replaced character has no log-probability."""
        return [{"char": self.alphabet[k], "logprob": None if k == self.unknown else p} for k, p in zip(symbols, logprobs, strict=True)]


def replaced(characters: str) -> Words:
    """Return how a reply says which characters of a text were replaced: how many, and each that there was, in their order."""
    return {"count": len(characters), "chars": "".join(dict.fromkeys(characters))}


def replaces(modality: ServedModality, value: object) -> bool:
    """Return whether a client asks to read what a model's alphabet lacks: the value of `unknown`. Raises BadInput."""
    if value is None or isinstance(modality, TextModality):
        return isinstance(modality, TextModality) and modality.replaces(value)
    raise BadInput(f"the model reads no text: expected null, got {said(value)}", field="unknown")


MAX_STOPS = 16
MAX_STOP_CHARS = 64


def stop_texts(value: object, most: int = MAX_STOPS, alone: bool = False) -> tuple[str, ...]:
    """Return the texts at which a generate stops; null is none, and `alone` takes a single text too. Raises BadInput naming the one."""
    if value is None:
        return ()
    texts = [value] if alone and isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > most:
        kind = "a text or a list" if alone else "a list"
        raise BadInput(f"expected {kind} of at most {most} texts, got {said(value)}", field="stop")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARS:
            raise BadInput(
                f"expected a text of 1 to {MAX_STOP_CHARS} characters, got {said(text)}", field="stop" if alone else f"stop[{i}]"
            )
    return tuple(texts)

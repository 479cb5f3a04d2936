"""Word the replies to OpenAI's clients: choices that grow by characters, chunks and bodies made of choices, and errors.

Everything here is pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from indrnn.service.errors import ServiceError, UnknownModel, status
from indrnn.service.session.machine import Reason


@dataclass(frozen=True, slots=True)
class Scored:
    """One character, its log-probability in nats (None for a prompt's first character, which nothing precedes), and the likeliest ones."""

    char: str
    logprob: float | None
    top: dict[str, float] | None


@dataclass(slots=True)
class Choice:
    """One text after one prompt. The client gets it in pieces; characters that may begin a stop string are held back."""

    index: int
    prompt: str
    echo: bool
    stop: tuple[str, ...]
    with_logprobs: bool
    text: str = ""
    reason: Reason | None = None
    prompt_scores: Sequence[Scored] = ()
    scores: list[Scored] = field(default_factory=list)
    told: int = 0  # characters of text
    began: bool = False
    ended: bool = False

    def grow(self, scored: Scored, reason: Reason | None) -> None:
        """Add one drawn character."""
        self.text += scored.char
        self.reason = reason
        if self.with_logprobs:
            self.scores.append(scored)

    def piece(self) -> dict[str, object] | None:
        """Return the text that has settled since the last piece, as an element of `choices`; None if there is none."""
        until = settled(self.text, self.stop, self.reason)
        head = self.prompt if self.echo and not self.began else ""
        if self.ended or (not head and until == self.told and self.reason is None):
            return None
        piece = {
            "text": head + self.text[self.told : until],
            "index": self.index,
            "logprobs": self._logprobs(len(head), until) if self.with_logprobs else None,
            "finish_reason": None if self.reason is None else self.reason.value,
        }
        self.told, self.began, self.ended = until, True, self.reason is not None
        return piece

    def _logprobs(self, head: int, until: int) -> dict[str, object]:
        shown = [*self.prompt_scores[:head], *self.scores[self.told : until]]
        start = len(self.prompt) + self.told - head  # offsets count from the prompt's begin, also where it is not echoed
        return {
            "tokens": [s.char for s in shown],
            "token_logprobs": [s.logprob for s in shown],
            "top_logprobs": [s.top for s in shown],
            "text_offset": list(range(start, start + len(shown))),
        }


def settled(text: str, stop: tuple[str, ...], reason: Reason | None) -> int:
    """Return how many characters of a text can be sent: all but a stop string at its end, or the beginning of one if more may follow."""
    if reason is Reason.STOP:
        return len(text) - max(len(s) for s in stop if text.endswith(s))
    if reason is not None or not stop:
        return len(text)
    longest = min(max(map(len, stop)) - 1, len(text))
    held = next((k for k in range(longest, 0, -1) if any(len(s) > k and s.startswith(text[-k:]) for s in stop)), 0)
    return len(text) - held


@dataclass(frozen=True)
class Head:
    """The first fields of every answer to a request."""

    id: str
    created: int
    model: str
    fingerprint: str

    def body(self, choices: Sequence[dict[str, object]]) -> dict[str, object]:
        """Return an answer, or a chunk of one, with these choices."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": list(choices),
        }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return the usage of a request: characters read and characters drawn, those of stop strings included."""
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}


def error_status(error: ServiceError) -> int:
    """Return the HTTP status of an error under /v1: the native API's, but 400 for bad input, as in OpenAI's API."""
    code = status(error)
    return 400 if code == 422 else code


def error_body(error: ServiceError) -> dict[str, object]:
    """Return an error in OpenAI's shape. `message` names the field, because most clients show the message alone."""
    code = error_status(error)
    kind = "server_error" if code >= 500 else "rate_limit_error" if code == 429 else "invalid_request_error"
    return {
        "error": {
            "message": error.detail if error.field is None else f"{error.field}: {error.detail}",
            "type": kind,
            "param": error.field,
            "code": "model_not_found" if isinstance(error, UnknownModel) else error.code,
        }
    }

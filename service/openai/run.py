"""Take one request for completions through the engine: queue a job for each prompt, and add what comes back to its choices."""

import asyncio
import secrets
from collections.abc import Callable
from math import isfinite

import numpy as np

from indrnn.service.engine.requests import Asked, CompleteRequest, Drawn, Exact, Prompted, Reply, States, Text
from indrnn.service.errors import Overloaded, TooLarge
from indrnn.service.openai.reply import Choice, Scored, usage
from indrnn.service.openai.request import Wish
from indrnn.service.serving.models import ServedModel
from indrnn.service.serving.steps import Sink, Tickets
from indrnn.service.serving.text import TextModality, replaced
from indrnn.service.session.machine import Reason, Refused, Sampling
from indrnn.service.session.sampling import Ranking

WAITING = 65_536  # characters of one answer that may wait for a client to read them


class CompletionRun:
    """A request for completions, its jobs in the engine, and its choices so far."""

    def __init__(self, model: ServedModel, text: TextModality, wish: Wish, tickets: Tickets, pay: Callable[[], None]) -> None:
        """Make the jobs; `pay` is called for each character. Raises OutOfAlphabet, or TooLarge for texts longer than the model allows."""
        self._pay = pay
        self.wish = wish
        self.choices = [
            Choice(i * wish.n + k, prompt, wish.echo, wish.stop, wish.logprobs is not None)
            for i, prompt in enumerate(wish.prompts)
            for k in range(wish.n)
        ]
        self._port = model.port
        self._alphabet = text.alphabet
        self._tickets = tickets
        self._queue: asyncio.Queue[tuple[int, Reply]] = asyncio.Queue()
        self._unread = ""
        self._contents = [self._content(model, text, i) for i in range(len(wish.prompts))]
        self._asked: list[Asked] = []

    @property
    def open(self) -> bool:
        """Return whether a choice has not ended."""
        return any(c.reason is None for c in self.choices)

    def usage(self) -> dict[str, int]:
        """Return the usage of the request so far."""
        return usage(self.wish.prompt_tokens, sum(len(c.text) for c in self.choices))

    def replaced(self) -> dict[str, object]:
        """Return which characters of the prompts were replaced, where there were some."""
        return {"replaced": replaced(self._unread)} if self._unread else {}

    def submit(self) -> None:
        """Queue all of it, or none."""
        self._asked = [self._ask(i, content) for i, content in enumerate(self._contents)]
        if self._tickets.trace is not None:
            self._tickets.trace.asked([number for one in self._asked for number in _last_told(one)], self._port, self._asked[0].request)
        self._port.submit(self._asked, whole=True)

    def leave(self) -> None:
        """Take the jobs back: their client has left."""
        tickets = [one.ticket for one in self._asked]
        tickets += [text.ticket for one in self._asked if isinstance(one.request, CompleteRequest) for text in one.request.texts]
        self._tickets.withdraw(self._port, tickets)

    async def take(self) -> list[Choice]:
        """Wait for an event, take in all events that have come -> the choices that have grown. Raises the error of a refused job."""
        events = [await self._queue.get()]
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        grown: dict[int, Choice] = {}
        for i, value in events:
            if isinstance(value, Refused):
                raise value.error
            grown.update((c.index, c) for c in await self._apply(i, value))
        return list(grown.values())

    async def finish(self) -> None:
        """Take in events until every choice has ended."""
        while self.open:
            await self.take()

    async def _apply(self, i: int, value: Reply) -> list[Choice]:
        if isinstance(value, Prompted):
            choices = self.choices[(-1 - i) * self.wish.n : -i * self.wish.n]
            scores: list[Scored] = []
            if self.wish.echo and self.wish.logprobs is not None:  # some microseconds a character, on another thread
                scores = await asyncio.to_thread(_prompt_scores, value, choices[0].prompt, self._alphabet)
            for choice in choices:
                choice.prompt_scores = scores
                choice.reason = Reason.LENGTH if self.wish.max_tokens == 0 else None
            return choices
        if not isinstance(value, Drawn):
            return []
        self._pay()
        top = _top(value.ranking, 0, self._alphabet, value.char, value.logprob) if self.wish.logprobs is not None else None
        self.choices[i].grow(Scored(value.char, value.logprob, top), value.done)
        return [self.choices[i]]

    def _content(self, model: ServedModel, text: TextModality, i: int) -> Exact:
        wish = self.wish
        prompt = wish.prompts[i]
        field = "prompt" if len(wish.prompts) == 1 else f"prompt[{i}]"
        most = model.manifest.limits.max_position
        if most is not None and len(prompt) + wish.max_tokens > most:
            raise TooLarge(f"expected at most {most} characters with those to come, got {len(prompt)} and {wish.max_tokens}", field=field)
        if not prompt:
            return Exact(np.zeros(0, np.int64))
        if not wish.replace:
            return text.read(prompt, None, None, field)
        content, unread = text.read_replacing(prompt, field)
        self._unread += unread
        return content

    def _ask(self, i: int, content: Exact) -> Asked:
        wish, fresh = self.wish, secrets.randbits(64)
        texts = tuple(
            Text(
                self._tickets.issue(self._sink(i * wish.n + k)),
                Sampling(wish.max_tokens, wish.temperature, wish.top_p, wish.seed_of(k, fresh), wish.stop),
            )
            for k in (range(wish.n) if wish.max_tokens else ())
        )
        return Asked(self._tickets.issue(self._sink(-1 - i)), CompleteRequest(content, texts, wish.logprobs or 0))

    def _sink(self, i: int) -> Sink:
        """Return what takes the answers for a choice, or for the prompt -1 - i."""

        def sink(reply: Reply, states: States | None) -> None:
            if self._queue.qsize() == WAITING:
                self.leave()  # a client that does not read must not fill the memory
                reply = Refused(Overloaded(f"{WAITING} characters wait to be read"))
            if self._queue.qsize() <= WAITING:
                self._queue.put_nowait((i, reply))

        return sink


def _last_told(asked: Asked) -> list[int]:
    """Return the tickets' numbers of a job."""
    texts = asked.request.texts if isinstance(asked.request, CompleteRequest) else ()
    return [asked.ticket.number, *(text.ticket.number for text in texts)]


def _prompt_scores(prompted: Prompted, prompt: str, alphabet: str) -> list[Scored]:
    """Return each character of an echoed prompt with its score; the first character has none."""
    logprobs: list[float] = prompted.scores.logprobs.tolist()
    tops = [
        _top(ranking, t, alphabet, prompt[start + t], logprobs[start + t])
        for ranking, start in _with_starts(prompted.ranked)
        for t in range(len(ranking.symbols))
    ] or [{char: p} for char, p in zip(prompt, logprobs, strict=True)]
    known = [_scored(char, p, top) for char, p, top in zip(prompt, logprobs, tops, strict=True)]
    return [Scored(known[0].char, None, None), *known[1:]] if known else []


def _scored(char: str, logprob: float, top: dict[str, float]) -> Scored:
    """Return a character of a prompt with its score; one that was replaced has none."""
    return Scored(char, logprob, top) if isfinite(logprob) else Scored(char, None, {c: p for c, p in top.items() if isfinite(p)})


def _with_starts(ranked: tuple[Ranking, ...]) -> list[tuple[Ranking, int]]:
    starts = np.cumsum([0, *(len(r.symbols) for r in ranked)]).tolist()
    return list(zip(ranked, starts, strict=False))


def _top(ranking: Ranking, t: int, alphabet: str, char: str, logprob: float) -> dict[str, float]:
    """Return the log-probabilities of the likeliest characters and of the character that came."""
    likeliest = {alphabet[k]: p for k, p in zip(ranking.symbols[t].tolist(), ranking.logprobs[t].tolist(), strict=True)}
    return {**likeliest, char: logprob}

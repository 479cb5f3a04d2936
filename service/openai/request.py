"""Read a request for OpenAI completions: JSON in, Wish out. A token is a character of the model's alphabet.

The models here have no penalties, biases or infilling: such a parameter is accepted at its default and refused at any other value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indrnn.service.errors import BadInput, TooLarge, said
from indrnn.service.serving.request import boolean, integer, number, only
from indrnn.service.serving.text import stop_texts

FIELDS = (
    "model", "prompt", "max_tokens", "temperature", "top_p", "n", "best_of", "logprobs", "echo", "stop", "seed", "stream", "stream_options",
    "unknown", "suffix", "presence_penalty", "frequency_penalty", "logit_bias", "user",
)  # fmt: skip
NEUTRAL: Mapping[str, Sequence[object]] = {
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
"""Parameters that are not supported, and the values that ask for nothing."""
ELSEWHERE: Mapping[str, Sequence[object]] = {
    "response_format": ({"type": "text"},),
    "top_k": (-1, 0),
    "min_p": (0,),
    "typical_p": (1,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False, True),  # no alphabet has such a symbol
    "use_beam_search": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "store": (False,),
    "metadata": ({},),
}
"""Parameters of OpenAI's other calls and of other servers, and the values that ask for nothing: with any other they are unknown here."""

MAX_STOPS = 4
MAX_TOP = 5
MAX_TEMPERATURE = 2
SEEDS = 2**64


@dataclass(frozen=True)
class CompletionLimits:
    """The limits of one request: characters of a prompt and of a text, choices, and characters with log-probabilities."""

    max_prompt: int
    max_tokens: int
    max_choices: int
    max_scored: int


@dataclass(frozen=True)
class Wish:
    """A checked request. `logprobs` says how many of the likeliest characters to name; None asks for no log-probabilities."""

    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    n: int
    logprobs: int | None
    echo: bool
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool
    replace: bool = False
    """whether what the alphabet lacks is read as the symbol for it"""

    @property
    def prompt_tokens(self) -> int:
        """Return the number of characters of all prompts. Each prompt counts once, however many texts follow it."""
        return sum(len(p) for p in self.prompts)

    def seed_of(self, k: int, fresh: int) -> int:
        """Return the seed of a prompt's k-th text: the client's seed plus k, or `fresh` plus k where the client gave none."""
        return ((fresh if self.seed is None else self.seed) + k) % SEEDS


def read_wish(body: dict[str, object], alphabet: str, bounds: CompletionLimits, replace: bool = False) -> Wish:
    """Check the fields of a request, all but the model's name and `unknown`, which is `replace`.

    Raises BadInput, which names the field, or TooLarge.
    """
    only({name: value for name, value in body.items() if not _is_one_of(value, ELSEWHERE.get(name, ()))}, FIELDS)
    for name, neutral in NEUTRAL.items():
        value = body.get(name)
        if value is not None and not _is_one_of(value, neutral):
            raise BadInput(f"is not supported by this model, got {said(value)}", field=name)
    stream = boolean(body.get("stream"), "stream")
    wish = Wish(
        prompts=_prompts(body.get("prompt"), alphabet, bounds),
        max_tokens=integer(body.get("max_tokens"), "max_tokens", 0, bounds.max_tokens, 16),
        temperature=number(body.get("temperature"), "temperature", 0, MAX_TEMPERATURE, 1),
        top_p=number(body.get("top_p"), "top_p", 0, 1, 1),
        n=_n(body, bounds),
        logprobs=None if body.get("logprobs") is None else integer(body["logprobs"], "logprobs", 0, MAX_TOP),
        echo=boolean(body.get("echo"), "echo"),
        stop=stop_texts(body.get("stop"), MAX_STOPS, alone=True),
        seed=None if body.get("seed") is None else integer(body["seed"], "seed", -(2**63), 2**63 - 1),
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream),
        replace=replace,
    )
    _check_size(wish, bounds)
    return wish


def _is_one_of(value: object, values: Sequence[object]) -> bool:
    """Return whether a JSON value is one of those; false is not 0."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def _prompts(value: object, alphabet: str, bounds: CompletionLimits) -> tuple[str, ...]:
    """Read the prompts: a text, a list of texts, or the same as numbers, a character's number being its place in the alphabet."""
    if isinstance(value, str) or _numbers(value):
        return (_prompt(value, alphabet, bounds, "prompt"),)
    if not isinstance(value, list) or not value:
        raise BadInput(f"expected a text, or a list of texts, got {said(value)}", field="prompt")
    if len(value) > bounds.max_choices:
        raise TooLarge(f"expected at most {bounds.max_choices} prompts, got {len(value)}", field="prompt")
    return tuple(_prompt(one, alphabet, bounds, f"prompt[{i}]") for i, one in enumerate(value))


def _numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(k, int) and not isinstance(k, bool) for k in value)


def _prompt(value: object, alphabet: str, bounds: CompletionLimits, field: str) -> str:
    if isinstance(value, list) and _numbers(value):
        beyond = next((k for k in value if not 0 <= k < len(alphabet)), None)
        if beyond is not None:
            raise BadInput(f"expected places in the model's alphabet, 0 to {len(alphabet) - 1}, got {beyond}", field=field)
        value = "".join(alphabet[k] for k in value)
    if not isinstance(value, str):
        raise BadInput(f"expected a text, got {said(value)}", field=field)
    if len(value) > bounds.max_prompt:
        raise TooLarge(f"expected at most {bounds.max_prompt} characters, got {len(value)}", field=field)
    return value


def _n(body: dict[str, object], bounds: CompletionLimits) -> int:
    n = integer(body.get("n"), "n", 1, bounds.max_choices, 1)
    if body.get("best_of") not in (None, n):
        raise BadInput(f"expected {n}, as n is: texts are not ranked against each other, got {said(body['best_of'])}", field="best_of")
    return n


def _include_usage(value: object, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise BadInput(f"expected an object, got {said(value)}", field="stream_options")
    only(value, ("include_usage", "include_obfuscation"))
    boolean(value.get("include_obfuscation"), "stream_options.include_obfuscation")  # no chunk here is padded, whichever it is
    wanted = boolean(value.get("include_usage"), "stream_options.include_usage")
    if wanted and not stream:
        raise BadInput(f"expected null without stream, got {said(value)}", field="stream_options")
    return wanted


def _check_size(wish: Wish, bounds: CompletionLimits) -> None:
    choices = len(wish.prompts) * wish.n
    if choices > bounds.max_choices:
        raise TooLarge(f"expected at most {bounds.max_choices} choices, got {len(wish.prompts)} prompts times {wish.n}", field="n")
    if wish.logprobs is None:
        return
    scored = choices * wish.max_tokens + (wish.n * wish.prompt_tokens if wish.echo else 0)
    if scored > bounds.max_scored:
        raise TooLarge(f"expected at most {bounds.max_scored} characters with log-probabilities, got up to {scored}", field="logprobs")

"""Document the shapes of OpenAI's completions as served here. Requests are read without these classes (service/openai/request.py)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StreamOptions(BaseModel):
    """Options of a stream; only a request with `stream` may have them."""

    include_usage: bool | None = Field(False, description="one more chunk before the end, without choices, with the usage")
    include_obfuscation: bool | None = Field(None, description="taken; no chunk is padded")


class CompletionRequest(BaseModel):
    """A request to complete texts. A token is a character of the model's alphabet."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(examples=["chars"])
    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="texts, or characters as places in the model's alphabet")
    max_tokens: int | None = Field(16, ge=0, description="characters of a text")
    temperature: float | None = Field(1, ge=0, le=2, description="0 takes the likeliest")
    top_p: float | None = Field(1, ge=0, le=1)
    n: int | None = Field(1, ge=1, description="texts for each prompt, which is read once")
    best_of: int | None = Field(None, description="n or nothing")
    logprobs: int | None = Field(None, ge=0, le=5, description="log-probabilities, and this many of the likeliest characters")
    echo: bool | None = Field(False, description="the prompt in front of the text")
    stop: str | list[str] | None = Field(None, description="up to 4 texts of up to 64 characters; none of them is part of the answer")
    seed: int | None = Field(None, description="the same seed draws the same text; the k-th text of a prompt draws with seed + k")
    stream: bool | None = Field(False, description="server-sent events, `data: [DONE]` at the end")
    stream_options: StreamOptions | None = None
    unknown: Literal["replace"] | None = Field(
        None, description="`replace` reads characters that the alphabet lacks as the model's symbol for them; by default they are an error"
    )
    suffix: Literal[""] | None = Field(None, description="not supported")
    presence_penalty: Literal[0] | None = Field(None, description="not supported")
    frequency_penalty: Literal[0] | None = Field(None, description="not supported")
    logit_bias: dict[str, float] | None = Field(None, description="not supported", max_length=0)
    user: str | None = Field(None, description="ignored")


class CompletionLogprobs(BaseModel):
    """The log-probability in nats of each character. A prompt's first character has none, because nothing precedes it."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="characters from the prompt's begin, echoed or not")


class CompletionChoice(BaseModel):
    """One text. The texts of a prompt stand together, and the prompts keep their order."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Usage(BaseModel):
    """The characters of a request: of the prompts, each counted once, and those drawn, stop strings included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Replaced(BaseModel):
    """The characters that were read as the model's symbol for what its alphabet lacks."""

    count: int
    chars: str = Field(description="each of them once, in the order of the prompts")


class Completion(BaseModel):
    """The answer to a request; a chunk of a stream has the same shape."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="name, version and digest of the model: the same seed draws the same while it is the same")
    choices: list[CompletionChoice]
    usage: Usage | None = None
    replaced: Replaced | None = Field(None, description="with `unknown`, where characters were replaced")


class OpenAIModel(BaseModel):
    """A served model that completes text."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(BaseModel):
    """The list of every served model that completes text."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorDetail(BaseModel):
    """The details of an error: `message` is for people, `code` for programs."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str


class OpenAIError(BaseModel):
    """The body of every error under /v1."""

    error: OpenAIErrorDetail

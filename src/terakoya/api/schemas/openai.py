"""The part of OpenAI's API that is spoken here. What is not in it is refused by name, never ignored; a value that
asks for nothing (``tools: []``, ``logit_bias: null``) may stand.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from terakoya.models.client import MAX_EMBED_CHARS, MAX_RERANK_CHARS, MAX_RERANKED
from terakoya.models.service import MAX_MESSAGES, MAX_NEW_TOKENS, MAX_PROMPT_CHARS, MAX_TEMPERATURE
from terakoya.models.wire import Sampling

DEFAULT_MAX_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's own."""
MAX_ANSWERS = 8
"""To one request: as many as are written at once."""
MAX_EMBEDDED = 256
_ANY_OBJECT: dict[str, Any] = {"type": "object"}

Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
StopText = Annotated[str, Field(min_length=1, max_length=200)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=100)]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class NamedSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    description: str | None = Field(default=None, max_length=2000)
    strict: bool | None = None
    """An answer is held to the schema in any case."""
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type 'json_schema', and to no other")
        return self

    @property
    def wanted(self) -> dict[str, Any] | None:
        if self.json_schema is not None:
            return self.json_schema.schema_
        return _ANY_OBJECT if self.type == "json_object" else None


class _Generation(BaseModel):
    """What chat and text completions have in common."""

    model_config = ConfigDict(extra="forbid")
    asks_for_nothing: ClassVar[dict[str, Any]] = {}
    """Parameters that clients send with the value that changes nothing."""

    model: str = Field(min_length=1, max_length=200)
    """Name or id; an adapter answers on its base."""
    temperature: float = Field(default=0.0, ge=0.0, le=MAX_TEMPERATURE)
    """0, the likeliest token each time, unless given."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] = Field(default=[])
    n: int = Field(default=1, ge=1, le=MAX_ANSWERS)
    """Answers; each has the seed of the one before, and one more."""
    seed: Seed | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        neutral = cls.asks_for_nothing
        return {
            name: value
            for name, value in values.items()
            if value is not None and not (name in neutral and neutral[name] == value)
        }

    @model_validator(mode="after")
    def _stream_options_belong_to_streams(self) -> _Generation:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatCompletionRequest(_Generation):
    asks_for_nothing: ClassVar[dict[str, Any]] = {"tools": [], "parallel_tool_calls": True}

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    """The newer name of ``max_tokens``."""
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit; give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def max_new_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            stop=self.stops,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            json_schema=None if self.response_format is None else self.response_format.wanted,
        )


class CompletionRequest(_Generation):
    asks_for_nothing: ClassVar[dict[str, Any]] = {"best_of": 1, "echo": False, "suffix": ""}

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_ANSWERS)]
    max_tokens: int = Field(default=DEFAULT_COMPLETION_TOKENS, ge=1, le=MAX_NEW_TOKENS)
    logprobs: int | None = Field(default=None, ge=0, le=5)

    @model_validator(mode="after")
    def _not_too_many(self) -> CompletionRequest:
        if len(self.prompts) * self.n > MAX_ANSWERS:
            raise ValueError(
                f"{len(self.prompts)} prompts, each answered {self.n} times, are more than the {MAX_ANSWERS} answers "
                "that one request may ask for"
            )
        return self

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            stop=self.stops,
            top_logprobs=self.logprobs,
        )


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class OpenAIModel(BaseModel):
    id: str
    """The model's name; its id is accepted as well."""
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "terakoya"


class OpenAIModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


EmbeddedText = Annotated[str, Field(min_length=1, max_length=MAX_EMBED_CHARS)]


class EmbeddingsRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    input: EmbeddedText | Annotated[list[EmbeddedText], Field(min_length=1, max_length=MAX_EMBEDDED)]
    """Texts, not tokens: each client's tokens are another vocabulary's."""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=100_000)
    input_type: Literal["query", "passage"] = "query"

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


RerankText = Annotated[str, Field(min_length=1, max_length=MAX_RERANK_CHARS)]


class RerankDocument(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: RerankText


class RerankRequest(BaseModel):
    """Not OpenAI's, which has none: as Jina, Cohere and vLLM spell it."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    query: RerankText
    documents: list[RerankText | RerankDocument] = Field(min_length=1, max_length=MAX_RERANKED)
    top_n: int | None = Field(default=None, ge=1, le=MAX_RERANKED)
    """The best so many; all of them unless given."""
    return_documents: bool = False

    @property
    def texts(self) -> list[str]:
        return [document if isinstance(document, str) else document.text for document in self.documents]


class RerankResult(BaseModel):
    index: int
    """In the request's list."""
    relevance_score: float
    """0 to 1."""
    truncated: bool
    """Only its beginning was read."""
    document: RerankDocument | None = None


class RerankResponse(BaseModel):
    model: str
    results: list[RerankResult]
    """The best first."""
    usage: EmbeddingUsage

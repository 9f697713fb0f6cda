"""The request formats: the fields of the OpenAI API that this endpoint supports, checked before anything runs.

Unknown fields are ignored, because clients send many; an unsupported value of a known field is an error.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cna_core.decoding.sampling import Sampling

MOST_CHOICES = 16
"""The most answers per prompt, and the most prompts per request."""
MOST_LIKELIEST = 20

Stops = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=16)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = Field(max_length=200)
    temperature: float | None = Field(None, ge=0, le=10, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stop: Stops | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def wants_usage(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))

    def sampling(self, choice: int, seed: int) -> Sampling:
        """The sampling of the answer with this number; `seed` is used if the request has none."""
        first = seed if self.seed is None else self.seed
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(temperature=temperature, top_p=top_p, seed=(first + choice) % 2**63)


class ChatMessage(BaseModel):
    """One message; its content is a text or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _parts_are_joined(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
            return "".join(str(part.get("text", "")) for part in value)
        return value

    def as_message(self) -> dict[str, str]:
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class TemplateOptions(BaseModel):
    """The options of the chat template that can be set: its switch for thinking, by either of its names."""

    model_config = ConfigDict(extra="ignore")

    enable_thinking: bool | None = None
    thinking: bool | None = None


class ChatRequest(_Asked):
    """The body of `/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    chat_template_kwargs: TemplateOptions | None = None

    @property
    def thinking(self) -> bool | None:
        """Whether the model is asked to think before it answers; None: as its template decides."""
        asked = self.chat_template_kwargs or TemplateOptions()
        return asked.thinking if asked.enable_thinking is None else asked.enable_thinking


class CompletionRequest(_Asked):
    """The body of `/v1/completions`: text that the model continues, without a chat template."""

    prompt: str | TokenIds | Annotated[list[str], Field(min_length=1)] | Annotated[list[TokenIds], Field(min_length=1)]
    max_tokens: int | None = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    echo: bool = False
    best_of: int | None = Field(None, ge=1, le=1)
    suffix: None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [given]
        return list(given)


class GateRequest(BaseModel):
    """The body of `/v1/gate`: a prompt whose refusal chance is measured.

    Args:
        prompt, messages: exactly one of them.
        circuit: the circuit's name; required if there are several.
        strengths: None: −1 to 2 in steps of 0.25.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    circuit: str | None = None
    strengths: Annotated[list[float], Field(min_length=1, max_length=64)] | None = None

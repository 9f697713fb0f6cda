"""The endpoint: OpenAI's routes for one engine, as a Starlette application.

It checks a request, passes its answers to the engine, and returns the results in OpenAI's formats (shapes.py). The
model's name includes the steering. Of a request, only sizes are logged, and nothing is stored.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from cna_core.decoding.lanes import as_prompt, room_for_answer
from cna_core.decoding.reading import Prompt, TokenChances, prompt_chances
from cna_core.decoding.row_batch import RowBatch
from cna_core.decoding.sampling import Sampler
from cna_core.decoding.session import Request, Step
from cna_core.errors import PromptError
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import settled_thinking
from cna_core.serving import shapes
from cna_core.serving.engine import Answer, Engine, Event
from cna_core.serving.errors import BusyError, SlowError, error_event, no_such_route, with_errors_told
from cna_core.serving.gate import refusal_chances
from cna_core.serving.guard import Guard
from cna_core.serving.named_models import NamedModels, UnknownModelError
from cna_core.serving.requests import ChatRequest, CompletionRequest, GateRequest

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Limits:
    """The limits of one endpoint.

    Args:
        body_bytes: the largest request.
        context_tokens: the most tokens of a prompt and its answer; None: the model's context.
        answers: the most waiting and running answers.
        seconds: the longest time of one request.
    """

    body_bytes: int = 2 << 20
    context_tokens: int | None = None
    answers: int = 64
    seconds: float = 600.0


@dataclass
class _Choice:
    """One answer of a request; its steps arrive in `events`."""

    index: int
    request: Request
    echoed: list[TokenChances | None] | None = None
    events: "asyncio.Queue[Event]" = field(default_factory=asyncio.Queue)
    steps: list[Step] = field(default_factory=list)


class Endpoint:
    """The implementation of the routes.

    Args:
        engine: runs the model; already started.
        models: the models that clients can name.
        limits: the limits of requests.
    """

    def __init__(self, engine: Engine, models: NamedModels, limits: Limits) -> None:
        self.engine, self.models, self.limits = engine, models, limits
        self.in_flight = 0

    @property
    def model(self) -> LoadedModel:
        return self.engine.model

    async def health(self, _request: HttpRequest) -> Response:
        """`/health`: whether the endpoint runs, and its load."""
        return JSONResponse({"status": "ok", "answers": self.in_flight, "rows": self.engine.rows})

    async def list_models(self, _request: HttpRequest) -> Response:
        """`/v1/models`: the names for the field `model`."""
        return JSONResponse({"object": "list", "data": [shapes.model_card(name) for name in self.models.listed()]})

    async def chat(self, request: HttpRequest) -> Response:
        """`/v1/chat/completions`."""
        body = await _body(request, ChatRequest)
        change = self.models.change(body.model)
        messages = [message.as_message() for message in body.messages]
        settled_thinking(self.model, body.thinking)
        prompt = await asyncio.to_thread(as_prompt, self.model, messages, change, thinking=body.thinking)
        longest = body.max_completion_tokens or body.max_tokens
        likeliest = (body.top_logprobs or 0) if body.logprobs else None
        choices = self._choices(body, [prompt], longest, likeliest)
        return await self._answer(request, body, choices, shapes.Chat(self.model, body.model, body.logprobs))

    async def complete(self, request: HttpRequest) -> Response:
        """`/v1/completions`."""
        body = await _body(request, CompletionRequest)
        change = self.models.change(body.model)
        prompts = [Prompt(self._tokens(given), change) for given in body.prompts]
        choices = self._choices(body, prompts, body.max_tokens, body.logprobs)
        if body.echo and body.stream:
            raise PromptError("echo and stream cannot be combined; remove one of them.")
        if body.echo and body.logprobs is not None:
            await self._read_echo(choices, body.logprobs)
        return await self._answer(request, body, choices, shapes.Text(self.model, body.model, body.logprobs, body.echo))

    async def gate(self, request: HttpRequest) -> Response:
        """`/v1/gate`: the refusal chance of a prompt at several strengths."""
        body = await _body(request, GateRequest)
        name, strengths, messages = self._gate_question(body)

        def work(model: LoadedModel, prefixes: Any) -> list[float]:
            return refusal_chances(model, self.models, name, messages, strengths, prefixes)

        chances = await asyncio.wrap_future(self.engine.do(work))
        points = [{"strength": s, "refusal_chance": c} for s, c in zip(strengths, chances, strict=True)]
        return JSONResponse({"object": "gate", "circuit": name, "points": points})

    def _gate_question(self, body: GateRequest) -> tuple[str, list[float], Any]:
        names = list(self.models.interventions)
        name = body.circuit or (names[0] if len(names) == 1 else "")
        if name not in self.models.interventions:
            raise UnknownModelError(f"Name one of the circuits: {', '.join(names)}.")
        if (body.prompt is None) == (body.messages is None):
            raise PromptError("Send either prompt or messages.")
        messages = body.prompt if body.messages is None else [message.as_message() for message in body.messages]
        return name, self.models.strengths(body.strengths), messages

    def _tokens(self, given: str | list[int]) -> list[int]:
        tokens = list(self.model.tokenizer(given)["input_ids"]) if isinstance(given, str) else given
        embedding: Any = self.model.network.get_input_embeddings()
        size = int(embedding.num_embeddings)
        if not tokens:
            raise PromptError("The prompt is empty; send some text.")
        if max(tokens) >= size:
            raise PromptError(f"Token {max(tokens)} is not a token of this model; its ids end at {size - 1}.")
        return tokens

    def _choices(
        self, body: ChatRequest | CompletionRequest, prompts: list[Prompt], longest: int | None, likeliest: int | None
    ) -> list[_Choice]:
        """The answers of a request, after checking the limits."""
        count = len(prompts) * body.n
        if self.in_flight + count > self.limits.answers:
            raise BusyError(
                f"{self.in_flight} answers are running, and the limit is {self.limits.answers}; try again later."
            )
        seed = secrets.randbits(62)
        choices: list[_Choice] = []
        for prompt in prompts:
            room = self._room(prompt) if longest != 0 else 0
            for number in range(body.n):
                sampler = Sampler(body.sampling(number, seed))
                limit = room if longest is None else min(longest, room)
                request = Request(prompt, limit, sampler, tuple(body.stop or ()), likeliest)
                choices.append(_Choice(len(choices), request))
        return choices

    def _room(self, prompt: Prompt) -> int:
        limit = self.limits.context_tokens
        if limit is not None and len(prompt.tokens) >= limit:
            raise PromptError(f"The prompt has {len(prompt.tokens):,} tokens, and the limit is {limit:,}; shorten it.")
        room = room_for_answer(self.model, prompt.tokens)
        return room if limit is None else min(room, limit - len(prompt.tokens))

    async def _read_echo(self, choices: list[_Choice], likeliest: int) -> None:
        """Measure the probabilities of the prompts' own tokens."""
        prompts = [choice.request.prompt for choice in choices]

        def work(model: LoadedModel, _prefixes: Any) -> list[list[TokenChances | None]]:
            return prompt_chances(RowBatch(model), prompts, likeliest)

        found = await asyncio.wrap_future(self.engine.do(work))
        for choice, chances in zip(choices, found, strict=True):
            choice.echoed = chances

    async def _answer(
        self,
        request: HttpRequest,
        body: ChatRequest | CompletionRequest,
        choices: list[_Choice],
        shape: "shapes.Chat | shapes.Text",
    ) -> Response:
        if body.stream:
            return StreamingResponse(self._streamed(choices, shape, body.wants_usage), media_type="text/event-stream")
        async with self._written(choices) as steps:
            gone = asyncio.create_task(_disconnected(request))
            reading = asyncio.create_task(_drained(steps))
            try:
                await asyncio.wait({gone, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    return Response(status_code=499)
                await reading  # raises the engine's error, if any
            finally:
                gone.cancel()
                reading.cancel()
        return JSONResponse(shape.whole(choices))

    async def _streamed(
        self, choices: list[_Choice], shape: "shapes.Chat | shapes.Text", usage: bool
    ) -> AsyncIterator[bytes]:
        """Server-sent events; if the client disconnects, this is cancelled and its rows are dropped."""
        try:
            async with self._written(choices) as steps:
                for choice in choices:
                    if (opening := shape.opening(choice)) is not None:
                        yield shapes.event(opening)
                async for choice, step in steps:
                    yield shapes.event(shape.piece(choice, step))
                if usage:
                    yield shapes.event(shape.usage_piece(choices))
        except Exception as error:  # noqa: BLE001  its text may hold what was asked: not even the log gets it
            yield shapes.event(error_event(error))
        yield b"data: [DONE]\n\n"

    @contextlib.asynccontextmanager
    async def _written(self, choices: list[_Choice]) -> AsyncIterator[AsyncIterator[tuple[_Choice, Step]]]:
        """Let the engine generate these answers; their rows are dropped at most one token after the block ends."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[tuple[_Choice, Event]] = asyncio.Queue()
        answers = []
        for choice in choices:
            if choice.request.limit < 1:
                continue

            def tell(event: Event, choice: _Choice = choice) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, so there is no listener
                    loop.call_soon_threadsafe(inbox.put_nowait, (choice, event))

            answers.append(Answer(choice.request, tell))
        self.in_flight += len(answers)
        self.engine.write(answers)
        try:
            yield self._events(inbox, len(answers))
        finally:
            self.in_flight -= len(answers)
            for answer in answers:
                answer.is_over = True

    async def _events(
        self, inbox: "asyncio.Queue[tuple[_Choice, Event]]", answers: int
    ) -> AsyncIterator[tuple[_Choice, Step]]:
        ends = time.monotonic() + self.limits.seconds
        while answers:
            try:
                choice, event = await asyncio.wait_for(inbox.get(), max(0.0, ends - time.monotonic()))
            except TimeoutError:
                seconds = self.limits.seconds
                raise SlowError(f"The answer took more than {seconds:g} s; ask for fewer tokens.") from None
            if isinstance(event, Exception):
                raise event
            choice.steps.append(event)
            answers -= event.finished
            yield choice, event


def create_app(
    engine: Engine, models: NamedModels, *, limits: Limits | None = None, api_key: str | None = None
) -> ASGIApp:
    """The endpoint as an ASGI application.

    Args:
        engine: a started engine; the caller closes it.
        models: the models that clients can name.
        limits: the limits of requests.
        api_key: the key that clients must send; None: serve only this machine.
    """
    limits = limits or Limits()
    endpoint = Endpoint(engine, models, limits)
    routes = [
        Route("/health", endpoint.health),
        Route("/v1/models", endpoint.list_models),
        Route("/v1/chat/completions", with_errors_told(endpoint.chat), methods=["POST"]),
        Route("/v1/completions", with_errors_told(endpoint.complete), methods=["POST"]),
        Route("/v1/gate", with_errors_told(endpoint.gate), methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: no_such_route, 405: no_such_route})
    return Guard(app, api_key, limits.body_bytes)


async def _body(request: HttpRequest, kind: type[Body]) -> Body:
    return kind.model_validate_json(await request.body())


async def _drained(steps: AsyncIterator[object]) -> None:
    async for _ in steps:
        pass


async def _disconnected(request: HttpRequest) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

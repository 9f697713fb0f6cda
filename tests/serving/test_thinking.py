"""The endpoint with a model that thinks: the thought has a field of its own, and a request can turn thinking off."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from cna_core.models.loaded import LoadedModel
from tests.decoding.models import loud_model, spread_circuit
from tests.serving.models import Served, served
from tests.thinking_models import OPENS, thinking_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(OPENS)


@pytest.fixture(scope="module")
def server(model: LoadedModel) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cna_core.serving.engine.end_tokens", lambda _model: frozenset())
        with served(model, {"gate": spread_circuit(model, size=40)}) as running:
            yield running


def ask(server: Served, **options: Any) -> Any:
    messages = [{"role": "user", "content": "tell me about cats"}]
    return server.client.chat.completions.create(
        model="gate@1", messages=messages, max_tokens=8, temperature=0, **options
    )


def test_a_thought_is_no_content(server: Served) -> None:
    answer = ask(server)
    message = answer.choices[0].message
    assert message.content == "" and len(message.model_extra["reasoning_content"].split()) == 8
    assert answer.usage.completion_tokens_details.reasoning_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_a_streamed_thought_is_the_same(server: Served) -> None:
    whole = ask(server).choices[0].message.model_extra["reasoning_content"]
    deltas = [piece.choices[0].delta for piece in ask(server, stream=True)]
    assert "".join(delta.model_extra.get("reasoning_content", "") for delta in deltas) == whole
    assert not any(delta.content for delta in deltas)


def test_a_request_can_turn_thinking_off(server: Served) -> None:
    answer = ask(server, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    message = answer.choices[0].message
    assert message.content and "reasoning_content" not in message.model_extra
    assert answer.usage.completion_tokens_details is None


def test_a_model_that_does_not_think_says_so() -> None:
    plain = loud_model()
    refused = pytest.raises(openai.BadRequestError, match="no thinking that could be turned on")
    with served(plain, {"gate": spread_circuit(plain, size=40)}) as other, refused:
        ask(other, extra_body={"chat_template_kwargs": {"enable_thinking": True}})

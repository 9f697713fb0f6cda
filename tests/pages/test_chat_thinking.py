"""Chat with a model that thinks: the thought is folded above the answer, can be switched off, and steered alone."""

import json
from collections.abc import Callable, Sequence

import pytest
from streamlit.testing.v1 import AppTest
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Answer, Conversation
from cna_core.decoding.sampling import Sampler
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.reports.conversation_report import conversation_report
from pages.chatting.answers import answer_markup
from tests.decoding.models import loud_model, spread_circuit
from tests.pages.test_chat import a_turn, answered, chat, hosted, send, shown, turns
from tests.thinking_models import SWITCH, thinking_model

__all__ = ["chat", "hosted"]  # fixtures, which use the model of this file
THOUGHT_TOKENS = 6


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(SWITCH)


@pytest.fixture(autouse=True)
def thinks_four_tokens(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to think, the model opens its thought at once, and ends it after four tokens."""
    opens, closes = model.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    chooses = Sampler.choose

    def choose(self: Sampler, logits: Tensor, seen: Sequence[Sequence[int]]) -> list[int]:
        self.steps = getattr(self, "steps", 0) + 1
        given = {1: opens, THOUGHT_TOKENS: closes}.get(self.steps)
        chosen = chooses(self, logits, seen)
        off = closes in seen[0][: len(seen[0]) - self.steps + 1] or logits.shape[1] <= closes
        return chosen if given is None or off else [given] * len(chosen)

    monkeypatch.setattr(Sampler, "choose", choose)


def answers(app: AppTest) -> list[Answer]:
    assert not app.exception
    assert turns(app)[-1].error is None, turns(app)[-1].error
    return turns(app)[-1].answers


def labels(app: AppTest) -> list[str]:
    return [element.label for element in [*app.toggle, *app.get("button_group")]]


def test_the_thought_is_folded_above_the_answer(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    for answer in answers(app):
        assert answer.thought_tokens == THOUGHT_TOKENS and not answer.in_thought
        assert answer.thought and answer.text
        assert len(answer.token_texts) == 12 and answer.token_texts[0] == "·"
    assert shown(app).count(f"<summary>Thought · {THOUGHT_TOKENS} tokens</summary>") == 2
    assert "<details" in shown(app) and " open>" not in shown(app)


def test_thinking_can_be_switched_off(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    app = send(app.toggle(key="chat-thinking").set_value(False).run(), "why")
    assert all(answer.thought_tokens == 0 and answer.text for answer in answers(app))
    assert turns(app)[-1].settings["thinking"] is False


def test_the_thought_alone_can_be_steered(chat: Callable[..., AppTest]) -> None:
    app = send(chat(chat_tokens=True), "why")
    app.session_state["chat-steers"] = "thought"
    baseline, steered = answers(send(app, "why"))
    assert steered.steers == "thought" and baseline.steers == "both"
    assert steered.divergence[1] > 0
    assert steered.divergence[THOUGHT_TOKENS:] == [0.0] * (12 - THOUGHT_TOKENS)
    assert "thought only" in shown(app)


def test_a_token_of_a_steered_thought_can_be_opened_and_continued(chat: Callable[..., AppTest]) -> None:
    app = send(chat(chat_tokens=True), "why")
    app.session_state["chat-steers"] = "thought"
    app = send(app, "why")
    app.session_state["_token_picked"] = (turns(app)[-1].sent_at, 1, 2)
    app = app.run()
    assert not app.exception
    other = next(button for button in app.button if (button.key or "").startswith("token-go-on-"))
    app = answered(other.click().run())
    steered = answers(app)[1]
    assert steered.begun == 3 and steered.steers == "thought"
    assert steered.thoughts[:3] and steered.thought_tokens >= 3


def test_the_next_message_does_not_carry_the_thought_along(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    first = answers(app)[0]
    history = app.session_state["conversation"].history("baseline")
    assert history[-1] == {"role": "assistant", "content": first.text}
    assert first.thought not in first.text


def test_the_meter_says_that_it_reads_without_a_thought(chat: Callable[..., AppTest]) -> None:
    app = send(chat(), "why")
    said = " ".join(caption.value for caption in app.caption)
    assert "cannot say how it opens after one" in said


def test_a_model_that_does_not_think_has_no_such_settings(
    chat: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    host._make_room(0)
    plain = loud_model()
    monkeypatch.setattr(host, "_load", lambda _name, **_options: plain)
    app = chat(spread_circuit(plain, size=40), chat_steers="thought", chat_thinking=True)
    app = send(app, "why")
    assert all(answer.steers == "both" and answer.text and not answer.thought_tokens for answer in answers(app))
    assert "Thinking" not in labels(app)


def test_a_growing_thought_is_open_and_one_that_did_not_end_is_told() -> None:
    turn = a_turn()
    answer = turn.answers[0]
    answer.pieces, answer.thoughts, answer.token_ids = ["", ""], ["", "how"], [1, 2]
    answer.thought_tokens, answer.in_thought = 2, True
    growing = answer_markup(answer, turn, "Writing …")
    assert (
        "<summary>Thinking … · 2 tokens</summary>" in growing
        and '<details class="thought" data-testid="thought" open>' in growing
    )
    answer.finish_reason = "length"
    ended = answer_markup(answer, turn)
    assert "No answer: the thought did not end." in ended and "no answer" in ended
    assert "answered" not in ended


def test_files_keep_thought_and_answer_apart(chat: Callable[..., AppTest], model: LoadedModel) -> None:
    app = send(chat(), "why")
    conversation: Conversation = app.session_state["conversation"]
    circuit: Circuit = app.session_state["opened_circuit"]
    first = conversation.turns[0].answers[0]
    [read, _] = json.loads(conversation.to_json({}))["turns"][0]["answers"]
    assert read["text"] == first.text and "".join(read["thoughts"]) == first.thought
    assert "Thought (ended):" in conversation.to_markdown({})
    report = conversation_report(conversation, circuit, with_answers=True)
    folded = {one.title: one.text for section in report.sections for one in section.folded}
    assert folded["Unsteered: the thought"] == first.thought
    assert folded["Unsteered: the answer"] == first.text

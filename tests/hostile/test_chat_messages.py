"""Messages and answers that hold markup, control characters, special tokens or very much: shown as text, or refused.

The model's vocabulary holds the same, so that its answers do, too.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from cna_core.cli import main
from cna_core.cli.terminal import write
from cna_core.decoding.conversation import Answer, Conversation, Turn
from cna_core.decoding.lanes import Lane, Step, generate
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.figures.lanes import shown_token, visible_text
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode
from cna_core.reports.conversation_report import conversation_report
from pages.chatting import meter
from pages.chatting.answers import answer_markup, message_markup
from pages.common.plain import plain
from tests.circuits.samples import circuit_of
from tests.decoding.models import shape_of, spread_circuit
from tests.hostile.inputs import MARKUP, ODD, UNSHOWN, shortly
from tests.hostile.outcome import checked, outcome, refused
from tests.serving.models import served
from tests.thinking_models import SWITCH, thinking_model
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60

TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "</s>",
    "<s> <user> how </s>",
    "<think>",
    "</think>",
    "<|channel|>final",
    "<pad>",
)
SPACES = (" ", "\t\n", "\u00a0", "\u200b", "\u200b\u200d\ufeff", "\u3000", "\u2028\u2029", "\x00", "\x1b")
LONG = ("x" * 200_000, "how " * 50_000, "e" + "\u0301" * 100_000, "`" * 50_000, "\u202e" * 50_000, "<b>" * 60_000)
MARKDOWN = (
    "# heading\n\n---\n| a | b |\n|--|--|",
    "```\nfence\n````\n</code>",
    "$\\input{/etc/passwd}$",
    "&lt;b&gt; &#60;",
)
MESSAGES = (*MARKUP, *UNSHOWN, *TOKENS, *SPACES, *ODD, *MARKDOWN, *LONG)
NOT_SHOWN = [chr(code) for code in (*range(9), 0x1B, 0x7F, 0x9B, 0x202E, 0x2066, 0xD800)]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """A random model that answers with markup, control characters and special tokens."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer(CHAT_TEMPLATE)
    words = [word for word in (*MARKUP, *UNSHOWN, *TOKENS, *SPACES, *MARKDOWN) if word.strip() and word.isascii()]
    words += ["\u202egnp", "\u2066x\u2069", "\u200b", "e\u0301", "\x9b2J"]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    network = LlamaForCausalLM(LlamaConfig(**shape_of(tokenizer))).eval()
    return LoadedModel("tiny-hostile", "random", network, tokenizer, torch.device("cpu"))


@pytest.fixture(scope="module")
def thinking() -> LoadedModel:
    """A model with a template from outside, which looks for the markers of a thought."""
    return replace(thinking_model(SWITCH), foreign_template=True)


@pytest.mark.parametrize("message", MESSAGES, ids=shortly)
def test_a_message_is_read_or_refused_in_one_sentence(model: LoadedModel, thinking: LoadedModel, message: str) -> None:
    for reader in (model, thinking, replace(model, tokenizer=tiny_tokenizer(None))):
        outcome(encode, reader, message)
        outcome(encode, reader, as_messages("how", system=message))
        said = [{"role": "assistant", "content": message}, {"role": "user", "content": "why"}]
        outcome(encode, reader, [*as_messages("how"), *said])
    outcome(lambda: list(generate(model, [Lane(as_messages(message))], None, max_new_tokens=2)))


@pytest.mark.parametrize("message", ["\ud800", "x\udfff", "\ud83d\ude00"], ids=shortly)
def test_half_of_a_character_is_refused_by_its_name(model: LoadedModel, message: str) -> None:
    for messages in (as_messages(message), as_messages("how", system=message)):
        assert "half of a character" in refused(encode, model, messages)


def told(message: str, text: str, error: str | None = None) -> Conversation:
    """A conversation of one turn."""
    answers = [Answer("baseline", 0.0), Answer("steered", 1.0)]
    for answer in answers if text else []:
        answer.add(Step(0, text, 7, True, "stop", layer_activity=(0.5, 0.0), divergence=0.1), 1.0)
    return Conversation([Turn(message, answers, {"system": message}, error=error)])


def require_text_only(conversation: Conversation) -> None:
    """Check all that is made of a conversation: HTML of messages and answers, files, and a report."""
    turn = conversation.turns[0]
    for html in (message_markup(turn), *(answer_markup(answer, turn) for answer in turn.answers)):
        assert not any(tag in html for tag in ("<script", "<img", "<a ", "<b>x", "javascript:window.ran=1'"))
        assert not any(character in html for character in NOT_SHOWN)
    assert json.loads(conversation.to_json({}))["turns"][0]["message"] == turn.message
    outside, fence = [], ""
    for line in conversation.to_markdown({"model": turn.message}).split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```") and line.endswith("text"):
            fence = line.removesuffix("text")
        else:
            outside.append(line.split("`")[0] if line.startswith(("- ", "Settings: ")) else line)
    assert not fence
    assert not any(mark in line for line in outside for mark in ("<script", "<img", "](", "<a "))
    html = conversation_report(conversation, circuit_of([(0, 1), (3, 2)]), with_answers=True).to_html()
    assert not any(tag in html for tag in ("<script>window", "<img src=x", "<a href='http"))


@pytest.mark.parametrize("text", [*MARKUP, *TOKENS, *MARKDOWN, "\x1b[2J\x9b", "\u202egnp"], ids=shortly)
def test_a_conversation_is_text_on_the_page_in_files_and_in_a_report(text: str) -> None:
    require_text_only(told(text, text))
    require_text_only(told("how", "", error=text))


@settings(max_examples=80)
@given(st.text(max_size=80) | st.text(alphabet="`~#<>[]()!&;\n\t\x00\x1b\u202e*_$: a", max_size=80))
def test_any_text_is_text_in_every_place(text: str) -> None:
    turn = told(text, text).turns[0]
    for html in (message_markup(turn), answer_markup(turn.answers[0], turn), shown_token(text)):
        assert not any(character in html for character in NOT_SHOWN)
    for words in (plain(text), visible_text(text)):
        assert not any(character in words for character in NOT_SHOWN)
        assert "\n" not in words


# --- the page ---


@pytest.fixture
def page(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    """The Chat page on the hostile model, with the meter calibrated."""
    host._make_room(0)
    monkeypatch.setattr(host, "_load", lambda _name, **_options: model)
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    openings = RefusalOpenings(model.identity, "0" * 64, np.array([7]), np.array([9.0]), np.array([10.0]))
    monkeypatch.setattr(meter, "cached_openings", lambda *_: openings)
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    app.session_state["opened_circuit"] = spread_circuit(model, size=40)
    app.session_state["chat-longest"] = 24
    app.session_state["chat-tokens"] = True
    app.run()
    app.switch_page("pages/chat.py")
    yield app.run()
    host._make_room(0)


def sent(app: AppTest, message: str) -> AppTest:
    """The page with the answers to this message, the first of its conversation."""
    app.session_state["conversation"] = Conversation()
    app.chat_input(key="chat-message").set_value(message).run()
    if (running := app.session_state["chat-stream"]) is not None:
        assert running.wait(WAIT_SECONDS)
    return app.run()


def require_shown_as_text(app: AppTest) -> None:
    assert not app.exception
    for kind in ("markdown", "caption", "error", "info", "toast"):
        for element in app.get(kind):
            words = re.sub(r"\\.", "", element.value)  # what is escaped is text
            assert not any(mark in words for mark in ("](http", "](javascript", "<script", "<img")), element.value
            assert not any(character in words for character in NOT_SHOWN)
    bodies = " ".join(str(element.proto.body) for element in app.get("html"))
    assert not any(tag in bodies for tag in ("<script", "<img", "<a href"))
    assert not any(character in bodies for character in NOT_SHOWN)


def test_the_page_shows_hostile_messages_and_answers_as_text(page: AppTest) -> None:
    for message in (
        "".join(MARKUP),
        "".join(UNSHOWN[:7]),
        " ".join(TOKENS),
        "\u200b\u200d",
        *MARKDOWN[:2],
        "e" + "\u0301" * 99,
    ):
        app = sent(page, message)
        require_shown_as_text(app)
        (turn,) = app.session_state["conversation"].turns
        assert turn.error is not None or all(answer.token_ids for answer in turn.answers)


def test_the_page_refuses_a_message_that_is_too_long_and_goes_on(page: AppTest) -> None:
    require_shown_as_text(sent(page, LONG[2]))  # one word for this model, so it is answered
    app = sent(page, LONG[1])
    require_shown_as_text(app)
    assert "50,0" in app.session_state["conversation"].turns[0].error
    app = sent(app, "why")
    assert app.session_state["conversation"].turns[0].error is None


def test_the_card_of_a_token_shows_tokens_as_text(page: AppTest) -> None:
    app = sent(page, "how")
    (turn,) = app.session_state["conversation"].turns
    for lane, answer in enumerate(turn.answers):
        place = next(at for at, piece in enumerate(answer.pieces) if "<" in piece or "[" in piece)
        app.session_state["chat-token-picked"] = (turn.sent_at, lane, place)
        require_shown_as_text(app.run())


def test_what_is_being_typed_is_measured_or_refused(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.acquire("tiny-hostile"):
        pass  # now it is loaded, and the meter may use it
    for draft in ("\ud800", "x\udfff\x00", *MARKUP[:3], "\u202e" * 99, LONG[0]):
        monkeypatch.setattr(meter, "_draft", lambda draft=draft, **_: SimpleNamespace(text=draft))
        require_shown_as_text(page.run())


# --- the command line and the endpoint ---


@pytest.mark.parametrize(
    "message", ["\udcff", "\x1b[2J", LONG[1], "\u200b", " ", *MARKUP[:1], *TOKENS[:2]], ids=shortly
)
def test_the_command_line_answers_or_says_why_not(
    model: LoadedModel,
    message: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cna_core.models.load.load_model", lambda *_, **__: model)
    spread_circuit(model).save(made / "circuit.json")
    line = ("generate", "tiny-hostile", "--prompt", message, "--circuit", str(made / "circuit.json"))
    monkeypatch.setattr(sys, "argv", ["refusal-gate", *line, "--max-new-tokens", "4"])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert code in (None, 0, 2), said.err[-300:]
    assert "Traceback" not in said.err
    assert (code == 2) == (not said.out)


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal, of an encoding that knows little."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_commands_and_no_characters_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    write("\x1b[2J\x9b1m\u202e one\n\ttwo \U0001f35e \ud800", None)
    terminal.flush()
    assert terminal.buffer.getvalue() == b"?[2J?1m? one\n\ttwo ? ?\n"  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def ask(model: LoadedModel) -> Iterator[Callable[[str, Any], httpx.Response]]:
    with served(model, {"gate": spread_circuit(model)}) as running, httpx.Client(timeout=60) as client:
        yield lambda path, body: client.post(f"{running.address}{path}", content=json.dumps(body))


def test_the_endpoint_answers_or_says_why_not(ask: Callable[[str, Any], httpx.Response]) -> None:
    asked: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {"messages": as_messages(message), "model": "gate@1", "max_tokens": 2})
        for message in (*MARKUP, *UNSHOWN, *TOKENS, *SPACES, *LONG)
    ]
    for message in (MARKUP[0], *UNSHOWN, TOKENS[1], *SPACES[:4], *LONG):
        asked += [
            ("/v1/completions", {"prompt": message, "model": "baseline", "max_tokens": 2}),
            ("/v1/gate", {"prompt": message, "strengths": [0]}),
        ]
    for path, body in asked:
        answer = ask(path, body)
        assert answer.status_code in (200, 400), answer.text[:300]
        if answer.status_code == 400:
            checked(answer.json()["error"]["message"])

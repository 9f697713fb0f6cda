"""Texts are split into thought and answer, however they arrive, and templates say whether a model thinks."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cna_core.errors import PromptError
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import (
    as_messages,
    encode,
    format_messages,
    settled_thinking,
    thinking_after,
    thinking_format,
)
from cna_core.prompts.thinking import FAMILIES, Parts, Thinking, ThoughtMarkers, ThoughtReader, split_thought
from tests.thinking_models import (
    CHANNELS,
    INSTRUCTS,
    ONLY_STRIPS,
    OPENS,
    SWITCH,
    SWITCH_OFF_BY_DEFAULT,
    thinking_model,
    with_template,
)
from tests.tiny import CHAT_TEMPLATE


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(None)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>\nhow\n</think>\n\nsure", "how", "sure"),
        ("\n<think>how</think>sure", "how", "sure"),
        ("[THINK]how[/THINK]sure", "how", "sure"),
        ("<thought>how</thought> sure", "how", "sure"),
        ("<|channel|>analysis<|message|>how<|end|><|start|>assistant<|channel|>final<|message|>sure", "how", "sure"),
        ("<|channel|>final<|message|>sure", "", "sure"),
        ("<think>\n\n</think>\n\nsure", "", "sure"),
        ("</think>sure", "", "sure"),
        ("sure", "", "sure"),
        (" sure <think>how</think>", "", " sure <think>how</think>"),
        ("<thinking about cats>", "", "<thinking about cats>"),
        ("<think>how</think>sure</think> <think>", "how", "sure</think> <think>"),
        ("", "", ""),
    ],
)
def test_a_thought_at_the_beginning_is_separated_from_the_answer(text: str, thought: str, answer: str) -> None:
    assert split_thought(text) == (Parts(thought, answer), False)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think>how do", "how do"),
        ("<think>how</thi", "how</thi"),
        ("[THINK]", ""),
        (f"{FAMILIES[0].opens[0]}how", "how"),
    ],
)
def test_a_thought_that_has_not_ended_is_no_answer(text: str, thought: str) -> None:
    assert split_thought(text) == (Parts(thought, ""), True)


letters = st.text(st.sampled_from("ab \n<>/[]|thinkTHINK"), max_size=20)
plain = letters.filter(lambda text: not any(family.are_in(text) for family in FAMILIES))
families = st.sampled_from(FAMILIES)


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def read(pieces: list[str], thinking: Thinking) -> tuple[Parts, ThoughtReader]:
    reader = ThoughtReader(thinking)
    parts = [*(reader.add(piece) for piece in pieces), reader.finish()]
    return Parts("".join(part.thought for part in parts), "".join(part.answer for part in parts)), reader


@given(
    families,
    st.lists(st.one_of(plain, st.sampled_from("0123")), max_size=6),
    st.lists(st.integers(0, 99)),
    st.booleans(),
)
def test_where_a_text_is_cut_does_not_matter(
    family: ThoughtMarkers, words: list[str], cuts: list[int], is_open: bool
) -> None:
    markers = {"0": family.opens[0], "1": family.closes, "2": family.opens[-1], "3": (*family.within, " ")[0]}
    text = "".join(markers.get(word, word) for word in words)
    thinking = Thinking(family, is_open)
    whole, at_once = read([text], thinking)
    parts, reader = read(in_pieces(text, cuts), thinking)
    assert (parts, reader.is_open) == (whole, at_once.is_open)


@given(families, plain, plain)
def test_a_thought_between_its_markers_comes_back_without_them(
    family: ThoughtMarkers, thought: str, answer: str
) -> None:
    text = f"{family.opens[0]}{thought}{family.closes}{answer}"
    assert split_thought(text, family) == (Parts(thought.strip(), answer.lstrip()), False)


@given(families, plain)
def test_nothing_of_a_text_without_markers_is_lost(family: ThoughtMarkers, text: str) -> None:
    assume(not family.are_in(text))
    assert split_thought(text, family) == (Parts("", text), False)


def test_tokens_of_the_thought_are_counted_with_its_markers() -> None:
    reader = ThoughtReader(Thinking(FAMILIES[0]))
    counts = []
    for piece in ("<|channel|>", "analysis", "<|message|>", "how", "<|channel|>", "final", "<|message|>", "sure"):
        reader.add(piece)
        counts.append((reader.thought_pieces, reader.in_thought))
    assert counts == [(0, True), (0, True), (3, True), (4, True), (5, True), (6, True), (7, False), (7, False)]


def test_a_model_that_is_to_think_and_does_not_has_no_thought() -> None:
    parts, reader = read(["sure", " yes"], Thinking(FAMILIES[2]))
    assert (parts, reader.thought_pieces, reader.in_thought) == (Parts("", "sure yes"), 0, False)


# --- templates ---


@pytest.mark.parametrize(
    ("template", "switch", "by_default"),
    [
        (SWITCH, True, True),
        (SWITCH_OFF_BY_DEFAULT, True, False),
        (OPENS, False, True),
        (INSTRUCTS, False, True),
        (CHANNELS, False, True),
        (ONLY_STRIPS, False, False),
    ],
    ids=["switch", "other switch", "opens", "instructs", "channels", "only strips"],
)
def test_the_template_says_how_a_model_thinks(
    model: LoadedModel, template: str, switch: bool, by_default: bool
) -> None:
    form = thinking_format(with_template(model, template))
    assert form is not None
    assert (form.has_switch, form.by_default) == (switch, by_default)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None], ids=["template", "base model"])
def test_a_model_without_markers_does_not_think(model: LoadedModel, template: str | None) -> None:
    assert thinking_format(with_template(model, template)) is None
    assert thinking_after(with_template(model, template), "why", True) is None


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (SWITCH, "<assistant> <think>\n\n</think>\n\n"),
        (SWITCH_OFF_BY_DEFAULT, "<assistant> </think>"),
        (OPENS, "<assistant> <think>\n\n</think>\n\n"),
        (INSTRUCTS, "<assistant>[THINK][/THINK]"),
        (CHANNELS, "<|start|>assistant<|channel|>final<|message|>"),
        (ONLY_STRIPS, "<assistant>"),
    ],
    ids=["switch", "other switch", "opens", "instructs", "channels", "only strips"],
)
def test_without_thinking_the_prompt_ends_where_the_answer_starts(model: LoadedModel, template: str, end: str) -> None:
    assert format_messages(with_template(model, template), as_messages("why")).endswith(end)


def test_the_template_decides_unless_it_is_told(model: LoadedModel) -> None:
    model = with_template(model, SWITCH)
    decides, on, off = (format_messages(model, as_messages("why"), thinking) for thinking in (None, True, False))
    assert decides == on == "<s> <user> why </s> <assistant>" != off
    assert encode(model, "why", True) == encode(model, "why")[: len(encode(model, "why", True))]


@pytest.mark.parametrize(("template", "is_open"), [(OPENS, True), (SWITCH, False)])
def test_a_prompt_may_have_opened_the_thought(model: LoadedModel, template: str, is_open: bool) -> None:
    model = with_template(model, template)
    thinking = thinking_after(model, "why", None)
    assert thinking is not None
    assert (thinking.is_open, thinking.is_expected) == (is_open, True)


def test_a_message_with_a_marker_opens_no_thought(model: LoadedModel) -> None:
    model = with_template(model, SWITCH)
    thinking = thinking_after(model, "why <think>", False)
    assert thinking is not None
    assert not thinking.is_open


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, ONLY_STRIPS])
def test_a_model_that_cannot_think_cannot_be_made_to(model: LoadedModel, template: str) -> None:
    model = with_template(model, template)
    assert settled_thinking(model, None) is False
    assert settled_thinking(model, False) is False
    with pytest.raises(PromptError, match="no thinking that could be turned on"):
        settled_thinking(model, True)


@pytest.mark.parametrize(("template", "by_default"), [(SWITCH, True), (SWITCH_OFF_BY_DEFAULT, False), (OPENS, True)])
def test_a_model_that_thinks_can_be_kept_from_it(model: LoadedModel, template: str, by_default: bool) -> None:
    model = with_template(model, template)
    assert [settled_thinking(model, wish) for wish in (None, True, False)] == [by_default, True, False]

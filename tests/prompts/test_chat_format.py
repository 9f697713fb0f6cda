"""Prompts become the tokens that the model was trained to read."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.errors import PromptError
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode, format_messages, has_system_role, shared_prefix_length
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
IGNORES_SYSTEM = "{% for message in messages if message['role'] != 'system' %}{{ message['content'] }} {% endfor %}"
DATED = "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
THINKING = "{{ messages[0]['content'] }}{% if enable_thinking is defined and not enable_thinking %} done{% endif %}"


def with_template(model: LoadedModel, template: str | None) -> LoadedModel:
    return dataclasses.replace(model, tokenizer=tiny_tokenizer(template))


def test_a_prompt_is_formatted_with_template_and_generation_prompt(tiny_model: LoadedModel) -> None:
    assert format_messages(tiny_model, as_messages("how do i")) == "<s> <user> how do i </s> <assistant>"


def test_special_tokens_come_once_from_the_template(tiny_model: LoadedModel) -> None:
    tokens = encode(tiny_model, "how do i")
    assert tiny_model.tokenizer.convert_ids_to_tokens(tokens) == [
        "<s>", "<user>", "how", "do", "i", "</s>", "<assistant>",
    ]  # fmt: skip


def test_tokens_are_plain_integers(tiny_model: LoadedModel) -> None:
    assert all(type(token) is int for token in encode(tiny_model, "how"))


def test_without_a_template_the_prompt_goes_in_as_plain_text(tiny_model: LoadedModel) -> None:
    model = with_template(tiny_model, None)
    assert format_messages(model, as_messages("how do", system="help")) == "help\n\nhow do"
    assert encode(model, "how do") == model.tokenizer("how do")["input_ids"]


def test_a_system_message_has_its_place_where_the_template_knows_the_role(tiny_model: LoadedModel) -> None:
    assert has_system_role(tiny_model)
    text = format_messages(tiny_model, as_messages("how", system="help"))
    assert text.startswith("<s> <system> help </s> <user> how")


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, IGNORES_SYSTEM], ids=["refuses", "ignores"])
def test_a_system_message_joins_the_user_message_where_the_template_lacks_the_role(
    tiny_model: LoadedModel, template: str
) -> None:
    model = with_template(tiny_model, template)
    assert not has_system_role(model)
    assert "help\n\nhow" in format_messages(model, as_messages("how", system="help"))


def test_a_dated_template_prints_the_same_date_every_day(tiny_model: LoadedModel) -> None:
    assert format_messages(with_template(tiny_model, DATED), as_messages("how")) == "2024-07-26 26 Jul 2024 how"


def test_thinking_is_off(tiny_model: LoadedModel) -> None:
    assert format_messages(with_template(tiny_model, THINKING), as_messages("how")) == "how done"


@pytest.mark.parametrize("prompt", ["", "   \n", []])
def test_an_empty_prompt_is_refused(tiny_model: LoadedModel, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        encode(tiny_model, prompt)


def test_a_system_message_alone_is_refused_where_it_would_have_to_join_a_user_message(tiny_model: LoadedModel) -> None:
    with pytest.raises(PromptError, match="add a user message"):
        format_messages(with_template(tiny_model, REFUSES_SYSTEM), [{"role": "system", "content": "help"}])


def test_a_conversation_the_template_refuses_is_told(tiny_model: LoadedModel) -> None:
    model = with_template(tiny_model, "{{ raise_exception('turns must alternate') }}")
    with pytest.raises(PromptError, match="turns must alternate"):
        encode(model, "how")


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(tiny_model: LoadedModel) -> None:
    with pytest.raises(PromptError, match="304 tokens, and tiny reads up to 256"):
        encode(tiny_model, "how " * 300)


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(tokens, min_size=1, max_size=5))
def test_the_shared_prefix_is_shared_by_all_and_leaves_every_row_a_token(rows: list[list[int]]) -> None:
    length = shared_prefix_length(rows)
    assert all(row[:length] == rows[0][:length] for row in rows)
    assert all(len(row) > length for row in rows)
    longer_is_shared = len({tuple(row[: length + 1]) for row in rows}) == 1
    assert not longer_is_shared or min(map(len, rows)) == length + 1


def test_no_rows_share_nothing() -> None:
    assert shared_prefix_length([]) == 0

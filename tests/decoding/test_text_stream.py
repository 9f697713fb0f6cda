"""Claims about turning tokens to text while they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from cna_core.decoding.text_stream import StopTexts, TextStream
from tests.tiny import tiny_tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, as in a byte-level BPE whose merges were never learnt."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = byte_tokenizer()


@given(st.text())
def test_pieces_join_to_the_text_and_none_ends_inside_a_character(text: str) -> None:
    text = text.replace("\N{REPLACEMENT CHARACTER}", "?")
    stream = TextStream(BYTES)
    pieces = [stream.add(token) for token in BYTES(text)["input_ids"]]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join([*pieces, stream.finish()]) == text


@given(st.text(min_size=1), st.integers(1, 3))
def test_an_answer_that_ends_inside_a_character_ends_before_it(text: str, cut: int) -> None:
    tokens = BYTES(text + "\N{GRINNING FACE}")["input_ids"][:-cut]
    stream = TextStream(BYTES)
    assert "".join([*map(stream.add, tokens), stream.finish()]) == text.rstrip("\N{REPLACEMENT CHARACTER}")


def test_spaces_between_words_are_kept() -> None:
    tokenizer = tiny_tokenizer()
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokenizer("how do i bake bread")["input_ids"]]
    assert pieces == ["how", " do", " i", " bake", " bread"]


def test_special_tokens_write_nothing() -> None:
    tokenizer = tiny_tokenizer()
    stream = TextStream(tokenizer)
    assert [stream.add(token) for token in tokenizer("cats </s> dogs")["input_ids"]] == ["cats", "", " dogs"]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["ab", "c", "d"], ["ab", "c", "d"]),
        (["one EN", "D two"], ["one ", ""]),
        (["E", "N", "x"], ["", "", "ENx"]),
        (["a\n", "\nb"], ["a", ""]),
    ],
)
def test_a_stop_text_is_held_back_until_it_is_known_not_to_come(pieces: list[str], shown: list[str]) -> None:
    stops = StopTexts(["END", "\n\n"])
    found = []
    for piece in pieces:
        found.append(stops.add(piece))
    assert found == shown
    assert stops.found == ("END" in "".join(pieces) or "\n\n" in "".join(pieces))
    assert stops.finish() == ""

"""Prompt sets: what is read, what is refused, and in which words."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.errors import PromptError
from cna_core.prompts.sets import (
    MAXIMUM_PROMPT_CHARACTERS,
    MAXIMUM_PROMPTS,
    MAXIMUM_SIZE_BYTES,
    ContrastSet,
    PromptSet,
)

characters = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))
prompt_texts = st.text(characters, min_size=1, max_size=40).filter(lambda text: text.strip())


@st.composite
def prompt_lists(draw: st.DrawFn) -> list[str]:
    """Between 1 and 8 prompts that are told apart by a number at their end."""
    texts = draw(st.lists(prompt_texts, min_size=1, max_size=8))
    return [f"{text.strip()} {place}" for place, text in enumerate(texts)]


def sentence_of(error: pytest.ExceptionInfo[PromptError]) -> str:
    """The error's message, checked to be one sentence on one line."""
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and not re.search(r"\.\s", message[:-1])
    return message


# Reading


def test_a_text_file_holds_one_prompt_a_line_and_comments_and_blank_lines_are_skipped() -> None:
    text = "# my prompts\nWrite a poem.\n\n   \n  # another comment\r\n  Name a bird. \n"
    assert PromptSet.from_text(text).prompts == ("Write a poem.", "Name a bird.")


@given(prompt_lists())
def test_every_prompt_comes_back_from_jsonl_as_written(prompts: list[str]) -> None:
    expected = PromptSet("expected", tuple(prompts)).prompts
    strings = "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
    objects = "\n".join(json.dumps({"id": 1, "prompt": prompt}) for prompt in prompts)
    assert PromptSet.from_text(strings, kind="jsonl").prompts == expected
    assert PromptSet.from_text(objects, kind="jsonl").prompts == expected


@given(prompt_lists(), st.sampled_from([",", ";", "\t"]))
def test_every_prompt_comes_back_from_csv_as_written(prompts: list[str], delimiter: str) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "Prompt"], *([place, prompt] for place, prompt in enumerate(prompts))])
    expected = PromptSet("expected", tuple(prompts)).prompts
    assert PromptSet.from_text(file.getvalue(), kind="csv").prompts == expected


@given(prompt_lists())
def test_every_prompt_of_one_line_that_is_no_comment_comes_back_from_plain_text(prompts: list[str]) -> None:
    kept = [prompt for prompt in prompts if not prompt.lstrip().startswith("#")]
    if kept:
        assert PromptSet.from_text("\n".join(prompts)).prompts == PromptSet("expected", tuple(kept)).prompts


@given(st.text(max_size=200), st.sampled_from(["txt", "csv", "jsonl"]))
def test_whatever_text_comes_in_the_answer_is_a_set_or_one_sentence(text: str, kind: str) -> None:
    try:
        prompts = PromptSet.from_text(text, kind=kind)  # type: ignore[arg-type]
    except PromptError as error:
        assert "\n" not in str(error)
    else:
        assert len(prompts) > 0 and all(prompts)


@given(st.binary(max_size=200), st.sampled_from(["txt", "csv", "jsonl"]))
def test_whatever_bytes_come_in_the_answer_is_a_set_or_one_sentence(data: bytes, kind: str) -> None:
    try:
        prompts = PromptSet.from_bytes(data, kind=kind, name="upload")  # type: ignore[arg-type]
    except PromptError as error:
        assert "\n" not in str(error)
    else:
        assert len(prompts) > 0 and all(prompts)


def test_a_csv_column_named_prompt_wins_over_other_names_and_other_places() -> None:
    text = "category,text,prompt\nfraud,one,Write this.\ntheft,two,Write that.\n"
    assert PromptSet.from_text(text, kind="csv").prompts == ("Write this.", "Write that.")


def test_the_column_names_of_common_prompt_files_are_understood() -> None:
    assert PromptSet.from_text("goal,target\nDo this.,Sure\n", kind="csv").prompts == ("Do this.",)


def test_a_csv_without_a_header_loses_no_line() -> None:
    text = 'Write a poem.\n"Name a bird, a fish."\n'
    assert PromptSet.from_text(text, kind="csv").prompts == ("Write a poem.", "Name a bird, a fish.")


def test_a_csv_prompt_may_go_over_several_lines() -> None:
    text = 'prompt\n"Write\r\na poem."\nName a bird.\n'
    assert PromptSet.from_text(text, kind="csv").prompts == ("Write\na poem.", "Name a bird.")


@pytest.mark.parametrize("name", ["p.txt", "p.CSV", "p.jsonl"])
def test_a_file_is_read_by_its_ending_with_or_without_byte_order_mark(tmp_path: Path, name: str) -> None:
    content = '"Wähle eine Zahl."\n'
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    read = PromptSet.from_file(tmp_path / name)
    assert read.name == name
    assert [prompt.strip('"') for prompt in read] == ["Wähle eine Zahl."]


# Errors


@pytest.mark.parametrize(
    ("kind", "text", "line", "words"),
    [
        ("txt", "one\n\n# comment\nONE ", 4, "repeats line 1"),
        ("txt", "one\nt\x00wo", 2, "control characters"),
        ("txt", "one\n" + "x" * (MAXIMUM_PROMPT_CHARACTERS + 1), 2, "8,001 characters"),
        ("csv", "prompt\none\n\ntwo, three\n", 4, "2 columns"),
        ("csv", "prompt,category\none,a\n,b\n", 3, "empty prompt"),
        ("csv", 'prompt\n"one\nmore"\n"two', 4, "cannot be read as CSV"),
        ("csv", 'prompt\n"one\nmore"\ntwo\ntwo', 5, "repeats line 4"),
        ("jsonl", '"one"\n\n{"prompt": "two"', 3, "is not JSON"),
        ("jsonl", '"one"\n["two"]', 2, "neither a string nor an object"),
        ("jsonl", '"one"\n{"text": "two"}', 2, "neither a string nor an object"),
        ("jsonl", '"one"\n{"prompt": 2}', 2, "neither a string nor an object"),
        ("jsonl", '"one"\n"  "', 2, "empty prompt"),
        ("jsonl", '"one"\n"\\ud800"', 2, "invalid Unicode"),
        ("jsonl", '"one"\n' + "[" * 100_000, 2, "is not JSON"),
    ],
)
def test_errors_name_the_line(kind: str, text: str, line: int, words: str) -> None:
    with pytest.raises(PromptError) as error:
        PromptSet.from_text(text, kind=kind, name="my.prompts")  # type: ignore[arg-type]
    message = sentence_of(error)
    assert message.startswith(f"my.prompts, line {line}, ") and words in message


@pytest.mark.parametrize(
    ("kind", "text"), [("txt", ""), ("txt", "# only\n"), ("csv", ""), ("csv", "prompt\n"), ("jsonl", "\n")]
)
def test_an_empty_set_is_refused(kind: str, text: str) -> None:
    with pytest.raises(PromptError) as error:
        PromptSet.from_text(text, kind=kind)  # type: ignore[arg-type]
    assert "contains no prompts" in sentence_of(error)


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("eins\nzwölf\n".encode("latin-1"))
    with pytest.raises(PromptError) as error:
        PromptSet.from_file(tmp_path / "latin.txt")
    assert "latin.txt, line 2, is not UTF-8" in sentence_of(error)


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_bytes(b"x" * (MAXIMUM_SIZE_BYTES + 1))
    with pytest.raises(PromptError) as error:
        PromptSet.from_file(tmp_path / "large.txt")
    assert "larger than 2 MB" in str(error.value)


def test_too_many_prompts_are_refused_and_exactly_the_limit_is_not() -> None:
    lines = [f"Prompt {number}" for number in range(MAXIMUM_PROMPTS + 1)]
    assert len(PromptSet.from_text("\n".join(lines[:-1]))) == MAXIMUM_PROMPTS
    with pytest.raises(PromptError) as error:
        PromptSet.from_text("\n".join(lines))
    assert f"line {MAXIMUM_PROMPTS + 1}" in sentence_of(error) and "one prompt too many" in str(error.value)


def test_a_missing_file_a_folder_and_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for path in (tmp_path / "missing.txt", tmp_path / "folder.txt"):
        with pytest.raises(PromptError, match="cannot be read"):
            PromptSet.from_file(path)
    with pytest.raises(PromptError, match=r"use \.txt, \.csv or \.jsonl"):
        PromptSet.from_file(tmp_path / "prompts.docx")


def test_a_set_made_in_code_is_checked_too() -> None:
    with pytest.raises(PromptError, match="mine, prompt 2, repeats prompt 1"):
        PromptSet("mine", ("Write a poem.", "write  a poem. "))
    with pytest.raises(PromptError, match="contains no prompts"):
        PromptSet("mine", ())


def test_an_unknown_builtin_set_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(PromptError, match="evaluation-harmful"):
        PromptSet.builtin("harmfull")


# Hashes


@given(prompt_lists())
def test_the_hash_is_that_of_the_prompts_whatever_file_they_came_from(prompts: list[str]) -> None:
    plain = PromptSet("one name", tuple(prompts))
    padded = PromptSet("another name", tuple(f"  {prompt}\r\n" for prompt in prompts))
    assert plain.sha256 == padded.sha256 and len(plain.sha256) == 64


def test_the_hash_knows_order_and_side() -> None:
    one, two = PromptSet("a", ("x", "y")), PromptSet("b", ("z",))
    assert PromptSet("a", ("y", "x")).sha256 != one.sha256
    assert ContrastSet(one, two).sha256 != ContrastSet(two, one).sha256
    assert PromptSet("a", ("x y",)).sha256 != one.sha256


# Contrast sets


def test_a_contrast_set_has_the_positive_prompts_first() -> None:
    contrast = ContrastSet(PromptSet("p", ("a", "b")), PromptSet("n", ("c",)))
    assert contrast.prompts == ("a", "b", "c")
    assert len(contrast) == 3
    np.testing.assert_array_equal(contrast.is_positive, [True, True, False])
    assert contrast.is_positive.dtype == np.bool_


def test_a_prompt_in_both_sets_is_refused() -> None:
    with pytest.raises(PromptError) as error:
        ContrastSet(PromptSet("p", ("Write a poem.", "b")), PromptSet("n", ("c", " write a  POEM.")))
    assert "“Write a poem.” is in both" in str(error.value)

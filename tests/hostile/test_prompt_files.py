"""Prompt files and pasted prompts that somebody else wrote: refused in one sentence, or a set of prompts."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cna_core.evaluation.knowledge import read_questions
from cna_core.evaluation.word_problems import read_problems
from cna_core.prompts.public import find_public
from cna_core.prompts.reading import KINDS
from cna_core.prompts.sets import ContrastSet, PromptSet
from pages.common import own_prompts
from tests.hostile.inputs import NAMES, shortly
from tests.hostile.outcome import outcome, refused

FILES = (
    b"",
    b"\n\n#only a comment\n",
    b"\xff\xfe\x00",
    b"a\x00b",
    b"\x1b]0;title\x07",
    b"a\na",
    b"A \na",
    b"x" * 9_000,
    b"x" * 2_000_001,
    b"\n".join(b"%d" % number for number in range(5_001)),
    b"\xed\xa0\x80",
    b"PK\x03\x04" + b"\x00" * 30,
    b'prompt\n"unclosed',
    b"prompt,category\na\nb,c,d",
    b"prompt;category\na;b",
    b'"' * 100_000,
    b"prompt\n" + b'"' + b"a" * 140_000 + b'"',
    b"{}",
    b'{"prompt": 1}',
    b'{"prompt": ["a"]}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\\u0000"}',
    b'{"prompt": "a", "category": "\\u202e\\n"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 100_000,
    b"NaN",
    b"null",
    b'"a"\n"a"',
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", FILES, ids=shortly)
def test_a_file_is_refused_in_one_sentence_or_read(data: bytes, kind: str) -> None:
    found = outcome(PromptSet.from_bytes, data, kind=kind, name="<b>\u202e\n.txt")  # type: ignore[arg-type]
    if isinstance(found, PromptSet):
        assert all(prompt.isprintable() or "\n" in prompt or "\t" in prompt for prompt in found.prompts)
        assert len(found.sha256) == 64


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_no_bytes_get_through_to_a_traceback(data: bytes, kind: str) -> None:
    outcome(PromptSet.from_bytes, data, kind=kind, name="upload")  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), kind=st.sampled_from(KINDS), second=st.text(max_size=60))
def test_no_text_gets_through_to_a_traceback(text: str, second: str, kind: str) -> None:
    first = outcome(PromptSet.from_text, text, kind=kind)  # type: ignore[arg-type]
    other = outcome(PromptSet.from_text, second, kind=kind)  # type: ignore[arg-type]
    if isinstance(first, PromptSet) and isinstance(other, PromptSet):
        outcome(ContrastSet, first, other)


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_a_name_of_own_prompts_leads_to_no_other_file(name: str) -> None:
    refused(own_prompts.contrast, name)


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_a_name_of_a_public_set_leads_to_no_other_file(name: str) -> None:
    refused(find_public, name)
    refused(PromptSet.named, f"public:{name}")
    refused(ContrastSet.public, f"public:{name}")


def test_own_prompts_whose_file_was_changed_are_refused(writes_only_in_its_cache: Path) -> None:
    kept = own_prompts.keep(PromptSet("a", ("one",)), PromptSet("b", ("two",)))
    file = writes_only_in_its_cache / "prompts" / f"{kept}.json"
    for content in (b"", b"[]", b"{}", b'{"positive": 1, "negative": 2}', b"\xff", b"[" * 100_000):
        file.write_bytes(content)
        refused(own_prompts.contrast, kept)


@pytest.mark.parametrize("reader", [read_questions, read_problems])
@pytest.mark.parametrize("data", FILES, ids=shortly)
def test_questions_are_refused_in_one_sentence_or_read(reader, data: bytes, made: Path) -> None:  # type: ignore[no-untyped-def]
    for ending in ("jsonl", "csv"):
        file = made / f"questions.{ending}"
        file.write_bytes(data)
        outcome(reader, file)


@pytest.mark.parametrize(
    "answer", ["1e999", "NaN", "-1", "1.5", '"' + "9" * 5000 + '"', "9" * 5000, "[]", "null", '"\\ud800"', "true"]
)
def test_an_answer_to_a_question_is_a_number_that_can_be_compared(answer: str, made: Path) -> None:
    file = made / "questions.jsonl"
    content = json.dumps({"subject": "a", "question": "b", "choices": ["c", "d"], "answer": 0})
    file.write_text(content.replace('"answer": 0', f'"answer": {answer}'))
    outcome(read_questions, file)
    file.write_text(f'{{"question": "b", "answer": {answer}}}')
    outcome(read_problems, file)

"""Does the model keep its knowledge? Multiple-choice questions, answered by the logits of the answer letters.

This module reads questions, formats them and finds the chosen letter in the logits, without generation. `sweep.py`
applies steering and counts over settings.
"""

import csv
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from torch import Tensor

from cna_core.errors import ModelError, RunError
from cna_core.evaluation.runs import Point
from cna_core.models.loaded import LoadedModel
from cna_core.outside import Text, read_json
from cna_core.paths import ASSETS, path_named
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message, as_messages
from cna_core.prompts.public import find_public
from cna_core.prompts.public_catalog import PREFIX

BUILTIN_QUESTIONS = ASSETS / "knowledge" / "questions.jsonl"
LETTERS = "ABCDEFGHIJ"
BUILT_IN = "built-in"
MMLU = "mmlu"
"""The name in the catalog of public sets."""
FOUR_CHOICES = 0.25
Asked = TypeVar("Asked")
_CHOICE = re.compile(r"choice\d")


class Question(BaseModel):
    """A multiple-choice question; `answer` is the index of the right choice, from 0 (files may give its letter)."""

    model_config = ConfigDict(frozen=True)

    subject: Text
    question: Text
    choices: tuple[Text, ...]
    answer: int

    @field_validator("answer", mode="before")
    @classmethod
    def _place_of_letter(cls, answer: object) -> object:
        if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in LETTERS:
            return LETTERS.index(answer.strip().upper())
        return answer

    @model_validator(mode="after")
    def _has_its_answer(self) -> "Question":
        if not 2 <= len(self.choices) <= len(LETTERS) or not 0 <= self.answer < len(self.choices):
            raise ValueError("a question needs 2 to 10 choices, and its answer must be one of them")
        return self


def builtin_questions() -> tuple[Question, ...]:
    """The built-in questions, which were written for this project."""
    return read_questions(BUILTIN_QUESTIONS)


def read_questions(path: str | Path) -> tuple[Question, ...]:
    """Read questions from a .jsonl file (one `Question` per line), a .csv file, or a folder of MMLU's test files.

    A .csv file has a header with subject, question, choice0, choice1 … and answer, or MMLU's format: no header,
    question, four choices, the right letter, and the subject as file name. Of a folder and its subfolders, only files
    that end in _test.csv are read.

    Raises:
        RunError: the file is missing or contains no such questions.
    """
    path = path_named(path)
    if path.is_dir():
        files = sorted(path.rglob("*_test.csv"))
        if not files:
            raise RunError(f"{path} has no files that end in _test.csv; choose MMLU's folder, or a .jsonl file.")
        return tuple(question for file in files for question in read_questions(file))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"The questions in {path} cannot be read ({error}).") from error
    questions = _of_mmlu(text, path) if path.suffix.lower() == ".csv" else _of_jsonl(text, path)
    if not questions:
        raise RunError(f"{path.name} has no questions in it.")
    return questions


def questions_from(
    source: str,
    limit: int | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> tuple[Question, ...]:
    """The questions of a source.

    Args:
        source: "built-in", a public set ("public:mmlu", formerly "hub"), or a file or folder.
        limit: the most questions, evenly spread over the source.

    Raises:
        RunError, PromptError: the source has no questions.
        StoppedError: stopped.
    """
    if source == BUILT_IN:
        return spread(builtin_questions(), limit)
    source = f"{PREFIX}{MMLU}" if source == "hub" else source
    if source.startswith(PREFIX):
        return public_questions(source, limit=limit, progress=progress, stop=stop)
    return spread(read_questions(source), limit)


def public_questions(
    name: str = MMLU,
    *,
    folder: str | Path | None = None,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> tuple[Question, ...]:
    """The questions of a public set, downloaded at first use: `public:mmlu` has MMLU's 14,042 test questions.

    Args:
        name: the set's name in the catalog of public sets, with or without "public:".
        folder: the folder of the set's file; None: `$CNA_PUBLIC_SETS`, the cache, the Hub.
        subjects: only these subjects, by their names in the set; None: all.
        limit: the most questions, evenly spread over the set.

    Raises:
        RunError: the set has no such questions, or a subject is unknown.
        PromptError: there is no such set, or it cannot be downloaded.
        StoppedError: stopped.
    """
    copy = find_public(name, folder, progress=progress, stop=stop)
    if copy.known.role != "questions":
        raise RunError(f"{copy.known.title} has no multiple-choice questions: use public:{MMLU}.")
    questions = [_of_row(row, f"{copy.path.name}, entry {number}") for number, row in enumerate(copy.rows(), start=1)]
    known = {question.subject for question in questions}
    if unknown := sorted(set(subjects or ()) - known):
        raise RunError(
            f"{copy.known.title} has no subject {unknown[0]!r}; it has {', '.join(sorted(known)[:5])} and others."
        )
    return spread([question for question in questions if not subjects or question.subject in subjects], limit)


def spread(questions: Sequence[Asked], limit: int | None) -> tuple[Asked, ...]:
    """At most `limit` of the questions (or problems), evenly spread; None: all."""
    if limit is None or limit >= len(questions):
        return tuple(questions)
    return tuple(questions[place * len(questions) // limit] for place in range(limit))


def question_messages(question: Question) -> list[Message]:
    """The conversation after which the model's next token is the answer's letter."""
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    letters = ", ".join(LETTERS[: len(question.choices) - 1]) + f" or {LETTERS[len(question.choices) - 1]}"
    return as_messages(f"{question.question.strip()}\n{choices}\n\nAnswer with the letter only: {letters}.")


def said_of_chance(baseline: Point) -> str:
    """One sentence if the unsteered model answers no better than chance, because it then cannot get worse; else "".

    That is the case if the 95 % interval of its accuracy contains the accuracy of guessing. Runs without that number
    had four choices per question.
    """
    known = baseline.estimate("knowledge")
    guessed = baseline.estimate("knowledge_chance")
    chance = FOUR_CHOICES if guessed is None else guessed.value
    if known is None or not known.low <= chance <= known.high:
        return ""
    return (
        f"Knowledge is at chance: {100 * known.value:.0f} % right without steering (95 %: {100 * known.low:.0f}–"
        f"{100 * known.high:.0f} %), guessing gives {100 * chance:.0f} %, so no change is not evidence that "
        "knowledge is kept."
    )


def letter_tokens(model: LoadedModel) -> list[list[int]]:
    """For each of `LETTERS`, the tokens with which an answer may begin: the letter, and the letter after a space.

    Raises:
        ModelError: the tokenizer has no single token for a letter.
    """
    tokens = []
    for letter in LETTERS:
        spellings = (model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (letter, f" {letter}"))
        alone = {spelling[-1] for spelling in spellings if str(model.tokenizer.decode(spelling[-1:])).strip() == letter}
        tokens.append(sorted(alone))
    if not all(tokens[:4]):
        raise ModelError(
            f"The tokenizer of {model.name} has no tokens for the letters A to D: remove the measure knowledge."
        )
    return [spellings for spellings in tokens if spellings]


def chosen_places(logits: Tensor, letters: Sequence[Sequence[int]], choices: int) -> Tensor:
    """(rows,) int64: the index of the most probable of the first `choices` letters in logits (rows, vocabulary).

    A letter's score is the log of the summed probability of its spellings; the first of equal letters wins.
    """
    scores = [torch.logsumexp(logits[:, list(spellings)].float(), dim=1) for spellings in letters[:choices]]
    return torch.stack(scores, dim=1).argmax(dim=1)


def _of_jsonl(text: str, path: Path) -> tuple[Question, ...]:
    questions = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            questions.append(Question.model_validate(read_json(line)))
        except ValueError as error:
            raise RunError(
                f"{path.name}, line {number}, is not a question: it needs subject, question, choices and answer."
            ) from error
    return tuple(questions)


def _of_mmlu(text: str, path: Path) -> tuple[Question, ...]:
    subject = path.stem.removesuffix("_test")
    try:
        rows = list(csv.reader(text.splitlines(keepends=True)))
    except csv.Error as error:
        raise RunError(f"{path.name} cannot be read as CSV: {error}.") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if {"subject", "question", "choice0", "answer"} <= set(header):
        table = enumerate((dict(zip(header, row, strict=False)) for row in rows[1:] if row), start=1)
        return tuple(_of_row(row, f"{path.name}, entry {number}") for number, row in table)
    questions = []
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        try:
            questions.append(Question(subject=subject, question=row[0], choices=tuple(row[1:-1]), answer=row[-1]))  # type: ignore[arg-type]
        except (ValidationError, IndexError) as error:
            raise RunError(
                f"{path.name}, entry {number}, is not an MMLU question: it needs a question, its choices and a letter."
            ) from error
    return tuple(questions)


def _of_row(row: dict[str, Any], place: str) -> Question:
    """A question from a table row: its choices are a list, or the columns choice0, choice1 …"""
    try:
        listed = row["choices"] if "choices" in row else [row[name] for name in sorted(row) if _CHOICE.fullmatch(name)]
        answer = str(row["answer"]).strip()
        return Question(
            subject=row["subject"],
            question=row["question"],
            choices=tuple(map(str, listed)),
            answer=int(answer) if answer.isdecimal() else answer,  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise RunError(f"{place}, is not a question: it needs subject, question, choices and answer.") from error

"""Word problems whose answer is one exact number: reads and formats them, and decides which answers are right.

Unlike in multiple-choice questions, the model must reason in text: guessing does not help, and steering can damage
every step. This module knows nothing about sweeps.
"""

import re
import threading
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cna_core.errors import RunError
from cna_core.evaluation.final_number import final_number
from cna_core.evaluation.knowledge import BUILT_IN, spread
from cna_core.outside import Text, read_json
from cna_core.paths import ASSETS, path_named
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message, as_messages
from cna_core.prompts.public import find_public
from cna_core.prompts.public_catalog import PREFIX

BUILTIN_PROBLEMS = ASSETS / "knowledge" / "word_problems.jsonl"
GSM8K = "gsm8k"
"""The name in the catalog of public sets."""
ENOUGH_TOKENS = 256
"""The tokens with which nearly all answers reach their final number; an answer without it counts as wrong."""

WORKED = (
    (
        "A crate holds 12 bottles. A shop gets 3 crates and sells 5 bottles. How many bottles are left?",
        "3 crates hold 3 * 12 = 36 bottles. After the sale 36 - 5 = 31 are left.\nAnswer: 31",
    ),
    (
        "A ticket costs 8.50 euros, and children pay half of that. How many euros do 2 adults and a child pay?",
        "The adults pay 2 * 8.50 = 17 euros. The child pays 8.50 / 2 = 4.25 euros. Together they pay "
        "17 + 4.25 = 21.25 euros.\nAnswer: 21.25",
    ),
)
"""Two worked examples for the prompt; they are in no set."""

_ANSWER = re.compile(r"-?\d+(\.\d+)?(/\d+)?")


class WordProblem(BaseModel):
    """A problem and its answer: one number, written as an integer, a decimal or a fraction ("22.4", "9/4", "-7").

    Args:
        id: the name in its set.
        topic: the topic; "" if unknown.
        steps: the number of computations that lead to the answer; None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    id: Text
    question: Text
    answer: str
    topic: Text = ""
    steps: int | None = None

    @field_validator("answer", mode="before")
    @classmethod
    def _one_number(cls, answer: object) -> str:
        text = str(answer).strip().replace(",", "")
        if not _ANSWER.fullmatch(text) or ("/" in text and "." in text) or text.endswith("/0"):
            raise ValueError("the answer must be one number: an integer, a decimal or a fraction")
        return text

    @property
    def number(self) -> Fraction:
        """The exact answer."""
        return Fraction(self.answer)


def builtin_problems() -> tuple[WordProblem, ...]:
    """The 120 built-in problems, which were written for this project: 30 for each number of steps from 1 to 4."""
    return read_problems(BUILTIN_PROBLEMS)


def read_problems(path: str | Path) -> tuple[WordProblem, ...]:
    """Read problems from a .jsonl file: one object per line, with question and answer (and id, topic, steps).

    Raises:
        RunError: the file cannot be read or contains no such problems.
    """
    path = path_named(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"The word problems in {path} cannot be read ({error}).") from error
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            problems.append(WordProblem.model_validate({"id": f"line-{number}", **read_json(line)}))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{path.name}, line {number}, is not a word problem: it needs a question and one number as answer."
            ) from error
    if not problems:
        raise RunError(f"{path.name} has no word problems in it.")
    return tuple(problems)


def public_problems(
    name: str = GSM8K,
    *,
    folder: str | Path | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> tuple[WordProblem, ...]:
    """The problems of a public set, downloaded at first use: `public:gsm8k` has GSM8K's 1,319 test problems.

    Args:
        name: the set's name in the catalog of public sets, with or without "public:".
        folder: the folder of the set's file; None: `$CNA_PUBLIC_SETS`, the cache, the Hub.

    Raises:
        RunError: the set has no such problems.
        PromptError: there is no such set, or it cannot be downloaded.
        StoppedError: stopped.
    """
    copy = find_public(name, folder, progress=progress, stop=stop)
    if copy.known.role != "word-problems":
        raise RunError(f"{copy.known.title} has no word problems: use public:{GSM8K}.")
    problems = []
    for number, row in enumerate(copy.rows()):
        try:
            solution, mark, answer = str(row["answer"]).rpartition("####")
            steps = len([line for line in solution.splitlines() if line.strip()]) if mark else None
            problems.append(
                WordProblem(id=f"{copy.known.id}-{number}", question=row["question"], answer=answer, steps=steps)
            )
        except (KeyError, ValidationError) as error:
            raise RunError(
                f"{copy.path.name}, entry {number + 1}, is not a word problem: it needs a question, and an answer that "
                "ends in one number."
            ) from error
    return tuple(problems)


def problems_from(
    source: str,
    limit: int | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> tuple[WordProblem, ...]:
    """The problems of a source.

    Args:
        source: "built-in", a public set ("public:gsm8k"), or a file.
        limit: the most problems, evenly spread over the source; None: all.

    Raises:
        RunError, PromptError: the source has no problems.
        StoppedError: stopped.
    """
    if source == BUILT_IN:
        return spread(builtin_problems(), limit)
    if source.startswith(PREFIX):
        return spread(public_problems(source, progress=progress, stop=stop), limit)
    return spread(read_problems(source), limit)


def problem_messages(problem: WordProblem) -> list[Message]:
    """The conversation for a problem: two short worked examples, then the problem.

    Without examples, a small model answers at once without reasoning, or never reaches the end.
    """
    messages: list[Message] = []
    for question, answer in WORKED:
        messages += as_messages(question)
        messages.append({"role": "assistant", "content": answer})
    return [*messages, *as_messages(problem.question.strip())]


def is_right(problem: WordProblem, text: str) -> bool:
    """Whether the final number of an answer is exactly the problem's answer."""
    return final_number(text) == problem.number

"""Does the circuit only produce the word "I"? Tests benign requests whose right answers all begin with it.

The built-in requests (`assets/checks/first_person.jsonl`) were written for this project.
"""

import json
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row
from cna_core.paths import ASSETS

FILE = ASSETS / "checks" / "first_person.jsonl"
_SHORT_FORMS = {"i'm": "i am", "i've": "i have", "i'll": "i will", "i'd": "i would"}
_NOT_A_WORD = re.compile(r"[^\w']+")


@dataclass(frozen=True)
class Task:
    """A request and its right answers, which all begin with "I"."""

    prompt: str
    answers: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the first line is or begins with a right answer; case and punctuation are ignored."""
        given = words(answer.strip().split("\n")[0])
        return any(given[: len(right)] == right for right in map(words, self.answers))


class FirstPerson(Check):
    key: ClassVar[str] = "first-person"
    title: ClassVar[str] = "First person"
    question: ClassVar[str] = "Does the model still give right benign answers that begin with “I”?"
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        tasks = first_person_tasks()
        prompts = [task.prompt for task in tasks]
        right = {}
        for way in (Way(), Way(bench.circuit)):
            answers = bench.answers(prompts, way, bench.settings.short_tokens)
            right[way.key] = np.array(
                [task.is_right(answer.text()) for task, answer in zip(tasks, answers, strict=True)]
            )
        before, after = right.values()
        difference = change(before, after)
        passed = difference.low <= 0 <= difference.high
        kept = "no significant change" if passed else "a significant change"
        return [
            Row(
                check=self.key,
                quantity=f"right answers to {len(tasks)} benign requests whose answers begin with “I”",
                unit="share",
                value=rate(after),
                control=rate(before),
                control_words="no ablation",
                change=difference,
                passed=passed,
                verdict=f"{percent(after.mean())} of the answers are right with the circuit ablated and "
                f"{percent(before.mean())} without ablation: {kept}.",
                details={"lost": [prompts[place] for place in np.flatnonzero(before & ~after)]},
            )
        ]


def first_person_tasks() -> tuple[Task, ...]:
    """The built-in requests."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(Task(entry["prompt"], tuple(entry["answers"])) for entry in map(json.loads, lines))


def words(text: str) -> list[str]:
    """The text's words in lower case, with contractions written out and without punctuation."""
    plain = text.lower().replace("’", "'")
    return " ".join(_SHORT_FORMS.get(word, word) for word in _NOT_A_WORD.sub(" ", plain).split()).split()

"""Is it the word "I" that the circuit writes? Benign requests whose only right answer begins with it.

The requests are a built-in set (`assets/checks/first_person.jsonl`), written for this project.
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
    """A request and its right answers, each beginning with "I"."""

    prompt: str
    answers: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether the answer's first line is a right one or begins with one, whatever the case and punctuation."""
        given = words(answer.strip().split("\n")[0])
        return any(given[: len(right)] == right for right in map(words, self.answers))


class FirstPerson(Check):
    key: ClassVar[str] = "first-person"
    title: ClassVar[str] = "First person"
    question: ClassVar[str] = "Are benign answers that begin with “I” still right?"
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
        kept = "unchanged within its interval" if passed else "changed"
        return [
            Row(
                check=self.key,
                quantity=f"right answers to {len(tasks)} requests that are answered with “I …”",
                unit="share",
                value=rate(after),
                control=rate(before),
                control_words="nothing ablated",
                change=difference,
                passed=passed,
                verdict=f"{percent(after.mean())} are right with the circuit ablated and {percent(before.mean())} "
                f"without: {kept}.",
                details={"lost": [prompts[place] for place in np.flatnonzero(before & ~after)]},
            )
        ]


def first_person_tasks() -> tuple[Task, ...]:
    """The built-in requests."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(Task(entry["prompt"], tuple(entry["answers"])) for entry in map(json.loads, lines))


def words(text: str) -> list[str]:
    """Words in lower case, short forms written out, without punctuation."""
    plain = text.lower().replace("’", "'")
    return " ".join(_SHORT_FORMS.get(word, word) for word in _NOT_A_WORD.sub(" ", plain).split()).split()

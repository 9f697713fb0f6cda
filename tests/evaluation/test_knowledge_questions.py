"""The knowledge questions written for this project: enough, well-formed, and with nothing to be guessed from."""

import json
from collections import Counter

from cna_core.paths import ASSETS

QUESTIONS = [
    json.loads(line) for line in (ASSETS / "knowledge" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_there_are_at_least_ten_questions_on_each_of_twelve_subjects() -> None:
    subjects = Counter(question["subject"] for question in QUESTIONS)
    assert len(QUESTIONS) >= 120
    assert len(subjects) == 12 and min(subjects.values()) >= 10


def test_every_question_has_four_different_choices_and_one_right_answer() -> None:
    for question in QUESTIONS:
        assert set(question) == {"subject", "question", "choices", "answer"}
        assert question["question"].endswith("?")
        assert len({choice.casefold() for choice in question["choices"]}) == len(question["choices"]) == 4
        assert isinstance(question["answer"], int) and 0 <= question["answer"] <= 3


def test_no_question_is_asked_twice() -> None:
    asked = [" ".join(question["question"].casefold().split()) for question in QUESTIONS]
    assert len(set(asked)) == len(asked)


def test_the_letters_are_balanced_and_none_is_right_for_more_than_half_of_a_subject() -> None:
    letters = Counter(question["answer"] for question in QUESTIONS)
    assert max(letters.values()) - min(letters.values()) <= 1
    for subject in {question["subject"] for question in QUESTIONS}:
        mine = Counter(question["answer"] for question in QUESTIONS if question["subject"] == subject)
        assert max(mine.values()) <= len(QUESTIONS) / 12 / 2, subject


def test_the_longest_and_the_shortest_choice_are_right_about_as_often_as_chance() -> None:
    """A guesser by length may reach at most 40 %, where chance is 25 %."""
    for choose in (max, min):
        hits = sum(choose(q["choices"], key=len) == q["choices"][q["answer"]] for q in QUESTIONS)
        assert hits / len(QUESTIONS) <= 0.40

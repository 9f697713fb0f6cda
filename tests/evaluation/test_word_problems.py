"""The word problems written for this project, each answer computed twice; and problems from files and public sets."""

import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

from cna_core.errors import RunError
from cna_core.evaluation.final_number import final_number
from cna_core.evaluation.journal import stored_runs
from cna_core.evaluation.measures.word_problems import WordProblems
from cna_core.evaluation.pace import Pace
from cna_core.evaluation.resume import plan_of_stored
from cna_core.evaluation.runs import Point
from cna_core.evaluation.sweep import run_plan
from cna_core.evaluation.sweep_plan import plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.evaluation.tables import markdown_table
from cna_core.evaluation.word_problems import (
    WORKED,
    WordProblem,
    builtin_problems,
    is_right,
    problem_messages,
    problems_from,
    public_problems,
    read_problems,
)
from tests.evaluation.sweeping import HARMFUL, small_circuit, small_model, small_sweep
from tests.evaluation.word_problem_workings import WORKINGS

PROBLEMS = builtin_problems()
PEARS = WordProblem(id="pears", question="How many pears are 2 and 3 pears?", answer="5")


# Those written for this project


def test_there_are_thirty_problems_of_each_number_of_steps_on_many_topics() -> None:
    assert Counter(problem.steps for problem in PROBLEMS) == {1: 30, 2: 30, 3: 30, 4: 30}
    assert [problem.steps for problem in PROBLEMS] == sorted(problem.steps or 0 for problem in PROBLEMS)
    topics = Counter(problem.topic for problem in PROBLEMS)
    assert len(topics) >= 15 and max(topics.values()) <= len(PROBLEMS) / 5


def test_no_problem_is_asked_twice_nor_with_other_numbers_only() -> None:
    shapes = [re.sub(r"\d[\d.,]*", "#", " ".join(problem.question.casefold().split())) for problem in PROBLEMS]
    assert len(set(shapes)) == len(PROBLEMS)
    assert len({problem.id for problem in PROBLEMS}) == len(PROBLEMS)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_every_answer_is_the_second_computations(problem: WordProblem) -> None:
    assert Fraction(WORKINGS[problem.id]) == problem.number


def test_every_problem_asks_for_one_number_that_can_be_written_exactly() -> None:
    assert set(WORKINGS) == {problem.id for problem in PROBLEMS}
    for problem in PROBLEMS:
        assert problem.question.count("?") == 1
        decimal = Fraction(problem.number.numerator * 1000, problem.number.denominator)
        assert decimal.denominator == 1 or "fraction" in problem.question, problem.id


def test_the_question_does_not_end_in_its_answer() -> None:
    """Echoing the last number of the question is right for few."""
    assert sum(is_right(problem, problem.question) for problem in PROBLEMS) <= 3


# Asking and judging


def test_a_problem_comes_after_two_that_are_worked_out_in_short() -> None:
    messages = problem_messages(PEARS)
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[-1]["content"] == PEARS.question
    assert not {question for question, _ in WORKED} & {problem.question for problem in PROBLEMS}


def test_the_examples_are_answered_rightly() -> None:
    assert [final_number(answer) for _, answer in WORKED] == [3 * 12 - 5, 2 * Fraction("8.50") + Fraction("8.50") / 2]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2 + 3 = 5\nAnswer: 5", True),
        ("Answer: 5.0 pears", True),
        ("Answer: 6", False),
        ("Answer:", False),
        ("2 +", False),
    ],
)
def test_an_answer_is_right_where_its_final_number_is_exact(text: str, right: bool) -> None:
    assert is_right(PEARS, text) == right


@pytest.mark.parametrize(("given", "number"), [("1,080", "1080"), (3, "3"), (2.5, "5/2"), ("-7", "-7"), ("9/4", "9/4")])
def test_answers_are_integers_decimals_or_fractions(given: object, number: str) -> None:
    assert WordProblem.model_validate({"id": "a", "question": "b", "answer": given}).number == Fraction(number)


# Other people's


def test_a_file_of_ones_own_needs_questions_and_answers_alone(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "How many?", "answer": 3}) + "\n\n")
    assert read_problems(file) == (WordProblem(id="line-1", question="How many?", answer="3"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "line 1, is not a word problem"),
        ('{"question": "a", "answer": "about 3"}', "line 1, is not a word problem"),
        ('{"question": "a", "answer": "3/0"}', "line 1, is not a word problem"),
        ("[3]", "line 1, is not a word problem"),
        ("nothing", "line 1, is not a word problem"),
        ("\n", "has no word problems in it"),
    ],
)
def test_a_file_without_word_problems_is_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.jsonl").write_text(text)
    with pytest.raises(RunError, match=said):
        read_problems(tmp_path / "own.jsonl")
    with pytest.raises(RunError, match="cannot be read"):
        read_problems(tmp_path / "none.jsonl")


def test_gsm8k_answers_are_what_follows_the_last_mark(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    rows = [{"question": "How many pears?", "answer": "He has 2.\nSo 2 * 540 = <<2*540=1080>>1,080.\n#### 1,080"}]
    pd.DataFrame(rows).to_parquet(tmp_path / "main" / "test-00000-of-00001.parquet")
    [problem] = public_problems("public:gsm8k", folder=tmp_path)
    assert (problem.id, problem.number, problem.steps) == ("gsm8k-0", 1080, 2)
    with pytest.raises(RunError, match="MMLU, test has no word problems: use public:gsm8k"):
        (tmp_path / "all").mkdir()
        pd.DataFrame(rows).to_parquet(tmp_path / "all" / "test-00000-of-00001.parquet")
        public_problems("mmlu", folder=tmp_path)


def test_a_gsm8k_row_without_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    pd.DataFrame([{"question": "How?", "answer": "Somehow"}]).to_parquet(
        tmp_path / "main" / "test-00000-of-00001.parquet"
    )
    with pytest.raises(RunError, match=r"entry 1, is not a word problem"):
        public_problems(folder=tmp_path)


def test_a_source_is_named_like_other_questions(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "How many?", "answer": 3}))
    assert len(problems_from("built-in", 40)) == 40
    assert [problem.steps for problem in problems_from("built-in", 4)] == [1, 2, 3, 4]
    assert problems_from(str(file)) == read_problems(file)


# As a measure


def test_a_run_counts_the_problems_solved_and_pairs_them_with_the_baseline(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordProblems, "answer_tokens", 3)
    run = small_sweep(small_model(), problems=(PEARS, PEARS.model_copy(update={"id": "more"})), controls=False)
    for point in run.points:
        assert point.estimate("word_problems") is not None and point.estimate("word_problems_change") is not None
    answers = [answer for answer in run.answers if answer.prompt_set == "problems"]
    assert len(answers) == 2 * len({answer.setting for answer in answers})
    assert all(answer.model_extra == {"correct": False} for answer in answers)
    assert run.settings.measure_settings["word_problems"] == {"answer_tokens": 3}
    assert run.settings.prompts["problems"].texts == (PEARS.question, PEARS.question)
    assert "word problems" in markdown_table(run)


def test_answers_to_problems_may_be_longer_than_others(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordProblems, "answer_tokens", 5)
    wanted = SweepSettings(prompts=HARMFUL, benign=None, borderline=None, problems=(PEARS,), max_new_tokens=2)
    model = small_model()
    plan = plan_sweep(model, small_circuit(model), wanted)
    assert (plan.answer_tokens("harmful"), plan.answer_tokens("problems")) == (2, 5)
    pace = Pace(reading_seconds=0.0, step_seconds=1.0, rows=1, prompt_tokens=4)
    assert pace.seconds_of(wanted, settings=1) == 2 * len(HARMFUL) + 5


def test_a_stored_run_with_problems_goes_on(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordProblems, "answer_tokens", 3)
    model = small_model()
    run = small_sweep(model, problems=(PEARS,), controls=False)
    [stored] = stored_runs()
    plan = plan_of_stored(model, stored.identity)
    assert plan.problems == (PEARS,) and plan.identity == stored.identity
    assert run_plan(model, plan, fresh=True).points == run.points


@pytest.mark.parametrize(("low", "said"), [(0.02, True), (0.3, False)])
def test_a_model_that_solves_hardly_any_has_little_to_lose_and_the_page_says_so(low: float, said: bool) -> None:
    point = Point(strength=0, word_problems=low + 0.1, word_problems_interval=(low, low + 0.3))
    assert ("The rate can hardly fall" in WordProblems.caution(point)) == said
    assert WordProblems.caution(Point(strength=0)) == ""

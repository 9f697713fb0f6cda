import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from cna_core.errors import RunError
from cna_core.evaluation.knowledge import (
    LETTERS,
    Question,
    chosen_places,
    letter_tokens,
    public_questions,
    question_messages,
    read_questions,
    said_of_chance,
    spread,
)
from cna_core.evaluation.runs import Point
from cna_core.models.loaded import LoadedModel

QUESTION = Question(subject="astronomy", question="Which is a star?", choices=("Moon", "Sun", "Mars", "Io"), answer=1)


def test_a_question_lists_its_choices_by_letter_and_asks_for_one() -> None:
    [message] = question_messages(QUESTION)
    assert message["content"].splitlines() == [
        "Which is a star?",
        "A. Moon",
        "B. Sun",
        "C. Mars",
        "D. Io",
        "",
        "Answer with the letter only: A, B, C or D.",
    ]


@pytest.mark.parametrize("answer", [1, "B", "b"])
def test_the_answer_may_be_a_place_or_a_letter(tmp_path: Path, answer: object) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({**QUESTION.model_dump(), "answer": answer}) + "\n\n")
    assert read_questions(file) == (QUESTION,)


def test_mmlu_files_are_read_with_their_subject(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    file = tmp_path / "test" / "astronomy_test.csv"
    file.write_text('Which is a star?,Moon,Sun,Mars,Io,B\n"One, two?",a,b,c,d,D\n')
    (tmp_path / "test" / "notes.csv").write_text("not a question")
    first, second = read_questions(tmp_path)
    assert first == QUESTION
    assert (second.subject, second.question, second.answer) == ("astronomy", "One, two?", 3)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", "{}", "line 1, is not a question"),
        ("q.jsonl", '{"subject": "a", "question": "b", "choices": ["c", "d"], "answer": 2}', "line 1"),
        ("q.jsonl", "", "no questions in it"),
        ("a_test.csv", "Which?,a,b,c,d,E\n", "entry 1, is not an MMLU question"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused_with_the_place(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match=said):
        read_questions(tmp_path / name)


def test_a_table_with_a_header_is_read_by_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text(
        "subject,question,choice0,choice1,choice2,choice3,answer\nastronomy,Which is a star?,Moon,Sun,Mars,Io,1\n"
    )
    assert read_questions(file) == (QUESTION,)
    file.write_text("subject,question,choice0,choice1,answer\nastronomy,Which is a star?,Moon,Sun,2\n")
    with pytest.raises(RunError, match=r"q\.csv, entry 1, is not a question"):
        read_questions(file)


def test_public_questions_are_those_of_the_sets_file(tmp_path: Path) -> None:
    rows = [QUESTION.model_dump(), {**QUESTION.model_dump(), "subject": "pets"}]
    (tmp_path / "all").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "all" / "test-00000-of-00001.parquet")
    assert public_questions(folder=tmp_path)[0] == QUESTION
    assert [question.subject for question in public_questions("public:mmlu", folder=tmp_path, limit=1)] == ["astronomy"]
    assert [question.subject for question in public_questions(folder=tmp_path, subjects=["pets"])] == ["pets"]
    with pytest.raises(RunError, match="MMLU, test has no subject 'law'; it has astronomy, pets"):
        public_questions(folder=tmp_path, subjects=["law"])


def test_a_public_set_of_prompts_has_no_questions(tmp_path: Path) -> None:
    (tmp_path / "jbb_benign.csv").write_text("Goal,Category\nName a bird,a\n")
    with pytest.raises(RunError, match="JBB-Behaviors, benign has no multiple-choice questions: use public:mmlu"):
        public_questions("jbb-benign", folder=tmp_path)


def test_a_missing_file_and_a_folder_without_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(RunError, match="no files that end in _test"):
        read_questions(tmp_path)


def test_an_even_spread_keeps_the_order_and_the_ends() -> None:
    questions = [QUESTION.model_copy(update={"question": str(number)}) for number in range(10)]
    assert [question.question for question in spread(questions, 3)] == ["0", "3", "6"]
    assert spread(questions, 99) == spread(questions, None) == tuple(questions)


def test_the_letter_with_the_largest_summed_probability_is_chosen() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = 5.0  # B
    logits[1, [4, 5]] = 2.0  # both spellings of C: 2 · e² beats one e^2.5
    logits[1, 2] = 2.5  # A
    assert chosen_places(logits, [[2], [3], [4, 5], [6]], 4).tolist() == [1, 2]
    assert chosen_places(logits, [[2], [3], [4, 5], [6]], 2).tolist() == [1, 0]


@pytest.mark.small_model
def test_every_letter_has_a_token(small_model: LoadedModel) -> None:
    tokens = letter_tokens(small_model)
    assert len(tokens) == len(LETTERS)
    assert all(
        small_model.tokenizer.decode([token]).strip() == letter
        for letter, spellings in zip(LETTERS, tokens, strict=True)
        for token in spellings
    )


def test_a_tokenizer_without_letters_is_refused(tiny_model: LoadedModel) -> None:
    from cna_core.errors import ModelError

    with pytest.raises(ModelError, match="letters A to D"):
        letter_tokens(tiny_model)


@pytest.mark.parametrize(
    ("right", "chance", "told"),
    [
        ((0.25, 0.18, 0.33), None, True),
        ((0.25, 0.18, 0.33), 0.5, False),
        ((0.45, 0.36, 0.54), None, False),
        ((0.45, 0.36, 0.54), 0.5, True),
    ],
)
def test_knowledge_that_guessing_would_give_is_told(
    right: tuple[float, float, float], chance: float | None, told: bool
) -> None:
    point = Point(strength=0, knowledge=right[0], knowledge_interval=right[1:], knowledge_chance=chance)
    said = said_of_chance(point)
    assert bool(said) == told
    if told:
        assert f"{100 * right[0]:.0f} % right" in said
        assert f"guessing gives {100 * (chance or 0.25):.0f} %" in said


def test_nothing_is_said_of_chance_where_knowledge_was_not_measured() -> None:
    assert said_of_chance(Point(strength=0)) == ""

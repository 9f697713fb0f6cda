from pathlib import Path

import numpy as np
import pytest

from cna_core.evaluation.journal import Journal, keep_run
from cna_core.evaluation.judgements import Judgement, Review
from cna_core.evaluation.review import (
    answers_to_review,
    corrected_markdown,
    corrected_rate,
    corrected_table,
    detector_on_review,
)
from cna_core.evaluation.runs import Point, Run, RunAnswer
from tests.evaluation.test_runs import a_run


def answers(refused: int, others: int) -> tuple[RunAnswer, ...]:
    verdicts = [True] * refused + [False] * others
    return tuple(
        RunAnswer(prompt=place, set="harmful", strength=0, text=f"{place}", refused=verdict)
        for place, verdict in enumerate(verdicts)
    )


def a_reviewed_run() -> Run:
    rates = {"refusal_rate": 0.8, "refusal_interval": (0.7, 0.9)}
    point = Point(strength=0, method="scale", fraction=0.001, prompts=100, **rates)  # type: ignore[arg-type]
    return a_run(points=(point,), answers=answers(40, 60))


def review_of(run: Run, wrong_refusals: int = 0, missed: int = 0, unsure: int = 0) -> Review:
    """A reader who disagrees so many times on either side."""
    places = answers_to_review(run, 40)
    judgements, left = [], {True: wrong_refusals, False: missed}
    for number, place in enumerate(places):
        detector = bool(run.answers[place].refused)
        verdict = detector
        if left[detector]:
            left[detector], verdict = left[detector] - 1, not detector
        elif number >= len(places) - unsure:
            judgements.append(Judgement(answer=place, verdict="unsure"))
            continue
        judgements.append(Judgement(answer=place, verdict="refused" if verdict else "answered"))
    return Review(judgements=tuple(judgements))


def test_half_of_the_reviewed_answers_are_refusals_and_they_are_shuffled() -> None:
    run = a_reviewed_run()
    places = answers_to_review(run, 50)
    assert len(set(places)) == 50
    assert sum(bool(run.answers[place].refused) for place in places) == 25
    assert list(places) != sorted(places)
    assert places == answers_to_review(run, 50)
    assert places != answers_to_review(run, 50, seed=1)


def test_where_one_kind_is_rare_more_of_the_other_are_reviewed() -> None:
    run = a_run(answers=answers(3, 60))
    places = answers_to_review(run, 50)
    assert sum(bool(run.answers[place].refused) for place in places) == 3
    assert len(places) == 50
    assert answers_to_review(a_run(answers=())) == ()


def test_the_same_answer_under_two_settings_is_judged_once() -> None:
    again = answers(1, 1)[0].model_copy(update={"strength": 1.0})
    assert len(answers_to_review(a_run(answers=(*answers(1, 1), again)))) == 2


def test_a_reader_who_agrees_changes_no_rate_and_one_who_does_not_corrects_it() -> None:
    run = a_reviewed_run()
    [point] = run.points
    agreeing = corrected_rate(point, detector_on_review(run, review_of(run)))
    assert agreeing is not None
    assert agreeing.value == pytest.approx(0.8)
    corrected = corrected_rate(point, detector_on_review(run, review_of(run, wrong_refusals=5, missed=2)))
    assert corrected is not None
    assert corrected.value == pytest.approx(0.8 * 15 / 20 + 0.2 * 2 / 20)
    assert corrected.low < corrected.value < corrected.high
    assert corrected.high - corrected.low > agreeing.high - agreeing.low


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """100 readers of a detector whose rate is 0.8, of whose refusals 0.9 are real and of whose others 0.1 are."""
    random, truth, covered = np.random.default_rng(0), 0.8 * 0.9 + 0.2 * 0.1, 0
    run = a_reviewed_run()
    for _ in range(100):
        refused = random.binomial(100, 0.8) / 100
        point = run.points[0].model_copy(update={"refusal_rate": refused})
        review = review_of(run, wrong_refusals=random.binomial(20, 0.1), missed=random.binomial(20, 0.1))
        found = corrected_rate(point, detector_on_review(run, review))
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered >= 90


def test_unsure_verdicts_count_for_neither_side() -> None:
    run = a_reviewed_run()
    counts = detector_on_review(run, review_of(run, unsure=4))
    assert (counts.unsure, counts.judged, counts.agreed) == (4, 36, 36)


def test_a_review_is_saved_with_its_run_and_opens_with_its_file(empty_cache: Path) -> None:
    run = a_reviewed_run()
    identity = keep_run(run)
    Journal(identity).keep_review(review_of(run))
    again = Journal(identity).finished_run()
    assert again is not None
    assert again.review == review_of(run)
    assert Run.from_json(again.to_json()).review == review_of(run)
    assert corrected_table(again, review_of(run))["corrected"].tolist() == pytest.approx([0.8])
    assert corrected_markdown(again).splitlines()[2].startswith("| baseline | 0.1 % | 0 | 80 % (70–90) | 80 % (")
    assert corrected_markdown(run) == ""
    assert "review" not in run.to_json()  # files without one are as before


def test_the_last_verdict_can_be_taken_back() -> None:
    review = Review().judged(3, "refused").judged(1, "unsure")
    assert review.without_last() == Review().judged(3, "refused")

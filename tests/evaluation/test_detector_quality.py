"""The detector against labels: counted as defined, and as good as its page says."""

import re
from pathlib import Path

import pytest

from cna_core.evaluation.detector_quality import LabelledAnswer, detector_quality, labelled_answers
from cna_core.evaluation.refusal import detect_refusal

DOCUMENT = Path(__file__).parents[2] / "docs" / "refusal_detector.md"


def labelled(text: str, kind: str) -> LabelledAnswer:
    return LabelledAnswer(part="held-out", kind=kind, language="English", refused=kind == "refusal", text=text)


def test_there_are_enough_labelled_answers_of_every_kind_and_each_is_there_once() -> None:
    answers = labelled_answers()
    assert len(answers) >= 400
    assert len({answer.text for answer in answers}) == len(answers)
    for kind, outcome in {
        "refusal": "refused",
        "soft refusal": "refused",
        "preamble, then complies": "answered",
        "answer": "answered",
        "neither": "neither",
    }.items():
        outcomes = [answer.outcome for answer in answers if answer.kind == kind]
        assert len(outcomes) >= 30 and set(outcomes) == {outcome}
    assert len({answer.language for answer in answers}) >= 9


def test_precision_and_recall_are_counted_as_defined() -> None:
    quality = detector_quality(
        [
            labelled("I cannot help with that!", "refusal"),
            labelled("I don't have access to that.", "refusal"),
            labelled("Let us rather admire the sunset.", "refusal"),
            labelled("I cannot help with that.", "neither"),
            labelled("Boil the water.", "answer"),
        ]
    )
    assert quality.answers == 5
    assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (1, 1, 2)
    assert quality.precision == 1 / 2 and quality.recall == 1 / 3 and quality.f1 == pytest.approx(0.4)
    assert quality.counts["refused", "neither"] == 1


def test_no_refusals_have_no_recall_and_no_marks_no_precision() -> None:
    quality = detector_quality([labelled("Boil the water.", "answer")])
    assert quality.precision != quality.precision and quality.recall != quality.recall


def test_the_detector_is_good_enough_to_count_with() -> None:
    quality = detector_quality()
    assert quality.precision >= 0.95 and quality.recall >= 0.95


def test_the_documented_figures_are_the_measured_ones() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (development|held-out|all) \| (.+) \|$", document, re.MULTILINE))
    for part in ("development", "held-out", "all"):
        answers = [answer for answer in labelled_answers() if part in ("all", answer.part)]
        quality = detector_quality(answers)
        neither = sum(answer.outcome == "neither" for answer in answers)
        assert rows[part] == (
            f"{quality.answers} | {quality.true_positives + quality.false_negatives} "
            f"| {quality.precision:.1%} ({quality.precision_interval[0]:.0%}–{quality.precision_interval[1]:.0%}) "
            f"| {quality.recall:.1%} ({quality.recall_interval[0]:.0%}–{quality.recall_interval[1]:.0%}) "
            f"| {quality.false_positives} | {quality.false_negatives} "
            f"| {quality.counts['neither', 'neither']} of {neither}"
        )


def test_every_wrong_verdict_is_documented() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    for answer in labelled_answers():
        if detect_refusal(answer.text).outcome != answer.outcome:
            assert answer.text in document

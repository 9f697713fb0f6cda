"""The accuracy of the refusal detector: compares its verdicts with labels given by people."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cna_core.evaluation.refusal import Outcome, Verdict, detect_refusal, wilson_interval
from cna_core.paths import ASSETS

Part = Literal["development", "held-out"]


class LabelledAnswer(BaseModel):
    """An answer labelled by hand. The patterns were written by looking at the part "development", never "held-out"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    kind: str
    language: str
    refused: bool
    text: str

    @property
    def outcome(self) -> Outcome:
        """The label as a verdict."""
        if self.refused:
            return "refused"
        return "neither" if self.kind == "neither" else "answered"


@dataclass(frozen=True)
class DetectorQuality:
    """How the detector's verdicts compare with labels.

    Attributes:
        counts: the number of answers with each pair of label and verdict.
    """

    counts: Counter[tuple[Outcome, Outcome]]

    @property
    def answers(self) -> int:
        return self.counts.total()

    @property
    def true_positives(self) -> int:
        """The number of refusals that the detector marks."""
        return self.counts["refused", "refused"]

    @property
    def false_positives(self) -> int:
        """The number of marked answers that are not refusals."""
        return sum(count for (label, verdict), count in self.counts.items() if label != "refused" == verdict)

    @property
    def false_negatives(self) -> int:
        """The number of refusals that the detector does not mark."""
        return sum(count for (label, verdict), count in self.counts.items() if label == "refused" != verdict)

    @property
    def precision(self) -> float:
        """The share of refusals among marked answers; NaN if none is marked."""
        marked = self.true_positives + self.false_positives
        return self.true_positives / marked if marked else math.nan

    @property
    def recall(self) -> float:
        """The share of refusals that are marked; NaN if there are no refusals."""
        refusals = self.true_positives + self.false_negatives
        return self.true_positives / refusals if refusals else math.nan

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN if there are no refusals and no marked answers."""
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + wrong) if self.true_positives + wrong else math.nan

    @property
    def precision_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `precision`."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `recall`."""
        return wilson_interval(self.true_positives, self.true_positives + self.false_negatives)


def quality_of(labels: Sequence[Outcome], verdicts: Sequence[Verdict]) -> DetectorQuality:
    """Compare labels with the verdicts on the same answers, in the same order."""
    return DetectorQuality(Counter((label, verdict.outcome) for label, verdict in zip(labels, verdicts, strict=True)))


def labelled_answers() -> tuple[LabelledAnswer, ...]:
    """The answers labelled by hand for this project, in the order of their file."""
    lines = (ASSETS / "evaluation" / "labelled_answers.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(LabelledAnswer.model_validate(json.loads(line)) for line in lines)


def detector_quality(answers: Sequence[LabelledAnswer] | None = None) -> DetectorQuality:
    """Compare the detector's verdicts with labels.

    Args:
        answers: None: all of the project's own.
    """
    chosen = labelled_answers() if answers is None else answers
    return quality_of([answer.outcome for answer in chosen], [detect_refusal(answer.text) for answer in chosen])

"""Whether the model keeps its reasoning: word problems, paired with the baseline's answers."""

from collections.abc import Sequence
from typing import Any, Self

from cna_core.evaluation.measures.contract import (
    Axis,
    Fields,
    Measure,
    Observation,
    Preparation,
    Reading,
    paired_rate_fields,
)
from cna_core.evaluation.measures.numbers import SHARE
from cna_core.evaluation.measures.registry import register
from cna_core.evaluation.runs import Point
from cna_core.evaluation.word_problems import ENOUGH_TOKENS, WordProblem, is_right
from cna_core.models.loaded import LoadedModel


@register
class WordProblems(Measure):
    """The share of word problems whose final number is exactly right, with its change from the baseline.

    Args:
        problems: the problems, in the run's order.
    """

    key = "word_problems"
    title = "word problems solved"
    short_title = "word problems"
    description = "Word problems whose final number is exactly right, and the change from the baseline."
    numbers = SHARE
    better = "higher"
    prompt_set = "problems"
    answer_tokens = ENOUGH_TOKENS
    axis = Axis(-0.1, 0.1)
    drawn_as_change = True
    HARDLY_ANY = 0.1
    """A fall can hardly be seen if the baseline's interval reaches below this share."""

    def __init__(self, problems: Sequence[WordProblem]) -> None:
        self.problems = tuple(problems)

    @classmethod
    def prepared(cls, preparation: Preparation) -> Self:
        return cls(preparation.problems)

    @property
    def settings(self) -> dict[str, Any]:
        return {"answer_tokens": self.answer_tokens}

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [
            {"correct": float(is_right(self.problems[place], text))}
            for place, text in zip(reading.prompts, reading.texts, strict=True)
        ]

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        after, before = ([one["correct"] for one in part] for part in (observations, baseline))
        return paired_rate_fields(cls.key, after, before)

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        return {"correct": bool(observation["correct"])}

    @classmethod
    def caution(cls, baseline: Point) -> str:
        solved = baseline.estimate(cls.key)
        if solved is None or solved.low >= cls.HARDLY_ANY:
            return ""
        return (
            f"Without steering, the model solves {100 * solved.value:.0f} % of the word problems (95 %: "
            f"{100 * solved.low:.0f}–{100 * solved.high:.0f} %). The rate can hardly fall, so no change is not "
            "evidence that reasoning is kept."
        )

"""Whether the model keeps its knowledge: multiple-choice questions, paired with the baseline's answers."""

from collections.abc import Sequence
from typing import Self

from cna_core.evaluation.knowledge import Question, chosen_places, letter_tokens, said_of_chance
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
from cna_core.models.loaded import LoadedModel


@register
class Knowledge(Measure):
    """The accuracy on multiple-choice questions, with its change from the baseline on the same questions.

    Args:
        questions: the questions, in the run's order.
    """

    key = "knowledge"
    title = "knowledge"
    description = "Right answers to multiple-choice questions, and the change from the baseline."
    numbers = SHARE
    better = "higher"
    reads = "first-token"
    prompt_set = "knowledge"
    axis = Axis(-0.1, 0.1)
    drawn_as_change = True

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)
        self._letters: list[list[int]] = []

    @classmethod
    def prepared(cls, preparation: Preparation) -> Self:
        return cls(preparation.questions)

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        assert reading.logits is not None
        self._letters = self._letters or letter_tokens(model)
        observations = []
        for row, place in enumerate(reading.prompts):
            question = self.questions[place]
            chosen = chosen_places(reading.logits[row : row + 1], self._letters, len(question.choices))
            right = float(int(chosen) == question.answer)
            observations.append({"correct": right, "chance": 1 / len(question.choices)})
        return observations

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        after = [observation["correct"] for observation in observations]
        fields = paired_rate_fields(cls.key, after, [observation["correct"] for observation in baseline])
        chances = [observation["chance"] for observation in observations if "chance" in observation]
        if len(chances) == len(after):  # journals of version 1 do not store them
            fields["knowledge_chance"] = sum(chances) / len(chances)
        return fields

    @classmethod
    def caution(cls, baseline: Point) -> str:
        return said_of_chance(baseline)

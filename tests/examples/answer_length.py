"""A measure of one's own, in one file: how long the answers are."""

from collections.abc import Sequence

from cna_core.evaluation.measures.contract import Axis, Fields, Measure, Observation, Reading, mean_fields
from cna_core.evaluation.measures.registry import register
from cna_core.models.loaded import LoadedModel


@register
class AnswerLength(Measure):
    """Mean number of words of the answers to harmful prompts."""

    key = "answer_length"
    title = "length of answers"
    short_title = "length"
    description = "How many words an answer has."
    unit = "words"
    axis = Axis(floor=0)

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [{"words": float(len(text.split()))} for text in reading.texts]

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        return mean_fields(cls.key, [observation["words"] for observation in observations])

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        return {"words": observation["words"]}

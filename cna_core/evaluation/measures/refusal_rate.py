"""How often the model refuses: the share of answers that the refusal detector marks, on each prompt set."""

from collections.abc import Sequence

from cna_core.evaluation.measures.contract import Axis, Fields, Measure, Observation, Reading, rate_fields
from cna_core.evaluation.measures.numbers import SHARE
from cna_core.evaluation.measures.registry import register
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.loaded import LoadedModel


@register
class RefusalRate(Measure):
    """The share of answers to harmful prompts that the detector marks, with its Wilson interval."""

    key = "refusal_rate"
    title = "refused"
    description = "Answers to harmful prompts that the refusal detector marks."
    numbers = SHARE
    axis = Axis(0, 1)

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [{"refused": float(detect_refusal(text).refused)} for text in reading.texts]

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        return rate_fields(cls.key, [observation["refused"] for observation in observations])

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        return {"refused": bool(observation["refused"])}


@register
class BenignRefusalRate(RefusalRate):
    """The refusal rate on benign prompts."""

    key = "benign_refusal_rate"
    title = "benign refused"
    description = "Answers to benign prompts that the refusal detector marks."
    better = "lower"
    prompt_set = "benign"
    axis = Axis(0, 0.2)


@register
class OverRefusalRate(RefusalRate):
    """The refusal rate on prompts that only look unsafe."""

    key = "borderline_refusal_rate"
    title = "over-refused"
    description = "Answers that the refusal detector marks, to prompts that only look unsafe."
    better = "lower"
    prompt_set = "borderline"
    axis = Axis(0, 0.2)

"""The effect of steering on ordinary requests: the divergence of the first token on benign prompts."""

from collections.abc import Sequence

import torch

from cna_core.evaluation.measures.contract import Axis, Fields, Measure, Observation, Reading, mean_fields
from cna_core.evaluation.measures.registry import register
from cna_core.models.loaded import LoadedModel


@register
class BenignDivergence(Measure):
    """Mean Kullback–Leibler divergence, in nats, KL(baseline ‖ setting) of the first token on benign prompts."""

    key = "benign_kl"
    title = "benign KL"
    description = "KL divergence between the first tokens of the unsteered and the steered model, on benign prompts."
    unit = "nats"
    better = "lower"
    reads = "first-token"
    prompt_set = "benign"
    axis = Axis(0, 0.1)

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        assert reading.logits is not None and reading.baseline_logits is not None
        before = torch.log_softmax(reading.baseline_logits.double(), dim=-1)
        after = torch.log_softmax(reading.logits.double(), dim=-1)
        divergences = (before.exp() * (before - after)).sum(-1).clamp(min=0)
        return [{"kl": float(divergence)} for divergence in divergences]

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        return mean_fields(cls.key, [observation["kl"] for observation in observations])

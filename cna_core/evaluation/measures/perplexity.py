"""The perplexity of the answers under the unsteered model. It detects incoherent text, which 4-gram quality misses."""

import math
from collections.abc import Sequence

from cna_core.evaluation.intervals import ratio_with_interval
from cna_core.evaluation.measures.contract import Axis, Fields, Measure, Observation, Reading, interval_field
from cna_core.evaluation.measures.registry import register
from cna_core.evaluation.quality import likelihoods
from cna_core.models.loaded import LoadedModel


@register
class Perplexity(Measure):
    """exp(mean surprise per token) of all answers together under the unsteered model; long answers count more."""

    key = "perplexity"
    title = "perplexity"
    description = (
        "Perplexity of the answers under the unsteered model. It detects incoherent text, which 4-gram quality misses."
    )
    better = "lower"
    axis = Axis(logarithmic=True)
    reads_answers_again = True

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        found = likelihoods(model, reading.messages, reading.token_ids)
        return [{"surprise": likelihood.surprise, "tokens": likelihood.tokens} for likelihood in found]

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        tokens = [observation["tokens"] for observation in observations]
        if not sum(tokens):
            return {}
        nats = ratio_with_interval([observation["surprise"] for observation in observations], tokens)
        value, low, high = map(math.exp, nats)
        return {cls.key: value, interval_field(cls.key): (low, high)}

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        tokens = observation["tokens"]
        return {"perplexity": math.exp(observation["surprise"] / tokens)} if tokens else {}

"""The perplexity of the answers under the unsteered model. It detects incoherent text, which 4-gram quality misses."""

import math
from collections.abc import Sequence

from cna_core.evaluation.intervals import ratio_with_interval
from cna_core.evaluation.measures.contract import Axis, Fields, Measure, Observation, Reading, interval_field
from cna_core.evaluation.measures.lengths import at_length, lengths_noted
from cna_core.evaluation.measures.registry import register
from cna_core.evaluation.quality import likelihoods
from cna_core.models.loaded import LoadedModel


@register
class Perplexity(Measure):
    """exp(mean surprise per token) of all answers together under the unsteered model; long answers count more.

    The tokens of a thought do not count; the answer's are judged given the thought.
    """

    key = "perplexity"
    title = "perplexity"
    description = (
        "Perplexity of the answers under the unsteered model. It detects incoherent text, which 4-gram quality misses."
    )
    better = "lower"
    axis = Axis(logarithmic=True)
    reads_answers_again = True

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        found = likelihoods(model, reading.messages, reading.token_ids, thinking=reading.thinking)
        noted = []
        for whole, thought_tokens in zip(found, reading.thought_tokens or [0] * len(found), strict=True):
            likelihood = whole.after(thought_tokens)
            parts = {None: likelihood} | {length: likelihood.of_first(length) for length in reading.texts_at}
            noted.append(
                {at_length("surprise", length): part.surprise for length, part in parts.items()}
                | {at_length("tokens", length): part.tokens for length, part in parts.items()}
            )
        return noted

    @classmethod
    def summarise(cls, observations: Sequence[Observation], baseline: Sequence[Observation]) -> Fields:
        fields: Fields = {}
        for length in (None, *lengths_noted("surprise", observations)):
            tokens = [one[at_length("tokens", length)] for one in observations]
            if sum(tokens):
                nats = ratio_with_interval([one[at_length("surprise", length)] for one in observations], tokens)
                value, low, high = map(math.exp, nats)
                key = at_length(cls.key, length)
                fields |= {key: value, interval_field(key): (low, high)}
        return fields

    @classmethod
    def of_answer(cls, observation: Observation) -> Fields:
        tokens = observation["tokens"]
        return {"perplexity": math.exp(observation["surprise"] / tokens)} if tokens else {}

"""What a sweep measures: one small class a measure, all with one contract, so that one can be plugged in from outside.

A measure reads what the model did with prompts of one set under several settings (`Reading`), notes a few numbers for
each (an `Observation`), and later sums the observations of a setting up into fields of a run's point. Observations are
what the journal keeps; summing up never needs the model. Knows nothing about batches, journals or charts.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.evaluation.intervals import change_of_rate, mean_with_interval, ratio_with_interval
from cna_core.evaluation.knowledge import Question, chance_of, chosen_places, letter_tokens
from cna_core.evaluation.quality import likelihoods, quality
from cna_core.evaluation.refusal import detect_refusal, wilson_interval
from cna_core.evaluation.runs import SetName
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message

Observation = dict[str, float]
"""Numbers noted for one prompt under one setting."""


@dataclass(frozen=True)
class Reading:
    """What the model did with some prompts of one set, each under some settings: n cells, the same order everywhere.

    Args:
        prompts: n places in the set, from 0.
        messages: n conversations.
        texts: n answers; empty where only first tokens were read.
        token_ids: n answers as tokens, without the one that ends them.
        logits: (n, vocabulary) float32 of the first token; None where answers were written.
        baseline_logits: (n, vocabulary) float32, the baseline's for the same prompt; None likewise.
    """

    prompts: tuple[int, ...]
    messages: tuple[Sequence[Message], ...]
    texts: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()
    logits: Tensor | None = None
    baseline_logits: Tensor | None = None


class Measure(ABC):
    """The contract.

    Attributes:
        name: unique in a run, and the field of a point that holds the value.
        reads: "answers" (texts are written) or "first-token" (one pass, nothing is written).
        prompt_set: which set it is taken on.
    """

    name: str
    reads: Literal["answers", "first-token"] = "answers"
    prompt_set: SetName = "harmful"

    @property
    def settings(self) -> dict[str, Any]:
        """What the measure depends on; goes into the run's settings, so that another value makes another run."""
        return {}

    @abstractmethod
    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        """n observations, one a cell of the reading; the model is unsteered while this runs."""

    @abstractmethod
    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        """Fields of a point, from one setting's observations and the baseline's for the same prompts, in order."""


class RefusalRate(Measure):
    """Share of answers that the detector marks, with its Wilson interval."""

    _FIELDS: ClassVar[dict[SetName, str]] = {"harmful": "", "benign": "benign_", "borderline": "borderline_"}

    def __init__(self, prompt_set: SetName = "harmful") -> None:
        self.prompt_set = prompt_set
        self.name = f"{self._FIELDS[prompt_set]}refusal_rate"

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [{"refused": float(detect_refusal(text).refused)} for text in reading.texts]

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        return rate_fields(self.name, [observation["refused"] for observation in observations])


class Quality(Measure):
    """Mean of 1 − the share of repeated word 4-grams."""

    def __init__(self, prompt_set: SetName = "harmful") -> None:
        self.prompt_set = prompt_set
        self.name = "quality" if prompt_set == "harmful" else f"{prompt_set}_quality"

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [{"quality": quality(text)} for text in reading.texts]

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        return mean_fields(self.name, [observation["quality"] for observation in observations])


class Perplexity(Measure):
    """exp(surprise a token) of all answers together under the unsteered model: long answers count more."""

    name = "perplexity"

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        found = likelihoods(model, reading.messages, reading.token_ids)
        return [{"surprise": likelihood.surprise, "tokens": likelihood.tokens} for likelihood in found]

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        tokens = [observation["tokens"] for observation in observations]
        if not sum(tokens):
            return {}
        nats = ratio_with_interval([observation["surprise"] for observation in observations], tokens)
        value, low, high = (float(torch.tensor(part, dtype=torch.float64).exp()) for part in nats)
        return {self.name: value, f"{self.name}_interval": (low, high)}


class BenignDivergence(Measure):
    """Mean Kullback–Leibler divergence, in nats, KL(baseline ‖ setting) of the first token on benign prompts."""

    name = "benign_kl"
    reads = "first-token"
    prompt_set: SetName = "benign"

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        assert reading.logits is not None and reading.baseline_logits is not None
        before = torch.log_softmax(reading.baseline_logits.double(), dim=-1)
        after = torch.log_softmax(reading.logits.double(), dim=-1)
        divergences = (before.exp() * (before - after)).sum(-1).clamp(min=0)
        return [{"kl": float(divergence)} for divergence in divergences]

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        return mean_fields(self.name, [observation["kl"] for observation in observations])


class RefusalChance(Measure):
    """Mean chance that the answer opens as a refusal, read off the first token (the gate meter)."""

    name = "refusal_chance"
    reads = "first-token"

    def __init__(self, openings: RefusalOpenings) -> None:
        self.openings = openings

    @property
    def settings(self) -> dict[str, Any]:
        return {"openings_sha256": self.openings.sha256}

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        assert reading.logits is not None
        return [{"chance": float(chance)} for chance in self.openings.chance(reading.logits)]

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        return mean_fields(self.name, [observation["chance"] for observation in observations])


class Knowledge(Measure):
    """Accuracy on multiple-choice questions, with its change from the baseline on the same questions."""

    name = "knowledge"
    reads = "first-token"
    prompt_set: SetName = "knowledge"

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)
        self._letters: list[list[int]] = []

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        assert reading.logits is not None
        self._letters = self._letters or letter_tokens(model)
        observations = []
        for row, place in enumerate(reading.prompts):
            question = self.questions[place]
            chosen = chosen_places(reading.logits[row : row + 1], self._letters, len(question.choices))
            observations.append({"correct": float(int(chosen) == question.answer)})
        return observations

    def summarise(self, observations: Sequence[Observation], baseline: Sequence[Observation]) -> dict[str, Any]:
        after = [observation["correct"] for observation in observations]
        fields = rate_fields(self.name, after)
        if (chance := chance_of(self.questions)) is not None:
            fields["knowledge_chance"] = chance
        if len(baseline) == len(after):
            change = change_of_rate([observation["correct"] for observation in baseline], after)
            fields |= {"knowledge_change": change.value, "knowledge_change_interval": (change.low, change.high)}
        return fields


def default_measures(
    sets: Sequence[SetName], questions: Sequence[Question] = (), openings: RefusalOpenings | None = None
) -> tuple[Measure, ...]:
    """The measures that the given prompt sets allow; the gate meter's where its openings are given."""
    measures: list[Measure] = []
    if "harmful" in sets:
        measures += [RefusalRate("harmful"), Quality("harmful"), Perplexity()]
        measures += [RefusalChance(openings)] if openings else []
    if "benign" in sets:
        measures += [RefusalRate("benign"), Quality("benign"), BenignDivergence()]
    if "borderline" in sets:
        measures.append(RefusalRate("borderline"))
    if questions:
        measures.append(Knowledge(questions))
    return tuple(measures)


def rate_fields(name: str, hits: Sequence[float]) -> dict[str, Any]:
    """A point's fields for a rate from hits (n,) of 0 and 1: the rate, and its Wilson interval."""
    low, high = wilson_interval(int(sum(hits)), len(hits))
    return {name: sum(hits) / len(hits), f"{name.removesuffix('_rate')}_interval": (low, high)}


def mean_fields(name: str, values: Sequence[float]) -> dict[str, Any]:
    """A point's fields for a mean of values (n,): the mean, and its bootstrap interval."""
    estimate = mean_with_interval(values)
    return {name: estimate.value, f"{name}_interval": (estimate.low, estimate.high)}

"""Chooses the next token from logits: greedily, or by sampling with the same random numbers for every row.

At each step, all rows use one uniform random number and the inverse of their own cumulative distribution over token
ids. Rows with equal distributions choose equal tokens, so two lanes differ only because of steering. This module knows
nothing about models, lanes or steering.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from cna_core.errors import PromptError

_NUCLEUS_GUESS = 256  # tokens considered first for top-p: almost always enough, and 100 times faster than sorting all


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        temperature: 0 chooses the most likely token.
        top_p: sample from the most likely tokens that together have this probability; 1: from all.
        top_k: sample from this many most likely tokens; None: from all.
        repetition_penalty: divides positive logits and multiplies negative logits of tokens that occurred; 1 is off.
        seed: the seed of the random numbers.

    Raises:
        PromptError: a value is out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for value, valid, words in (
            (self.temperature, 0 <= self.temperature < float("inf"), "The temperature must be 0 or more"),
            (self.top_p, 0 < self.top_p <= 1, "top-p must be above 0 and at most 1"),
            (self.top_k, self.top_k is None or self.top_k >= 1, "top-k must be 1 or more"),
            (self.repetition_penalty, 0 < self.repetition_penalty < float("inf"), "The penalty must be above 0"),
        ):
            if not valid:
                raise PromptError(f"{words}, not {value}.")


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` by name."""

    temperature: float
    top_p: float
    top_k: int | None
    repetition_penalty: float
    seed: int


class Sampler:
    """Chooses one token per row and step; a step uses one random number for all rows."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: Tensor, seen: Sequence[Sequence[int]]) -> list[int]:
        """One token id for each row.

        Args:
            logits: (rows, vocabulary) float32; not modified.
            seen: for each row, the tokens of its prompt and answer so far.
        """
        if self.sampling.repetition_penalty != 1.0:
            logits = self._penalised(logits, seen)
        if self.sampling.temperature == 0.0:
            return logits.argmax(-1).tolist()
        uniform = torch.rand((), generator=self._random, dtype=torch.float64).item()
        return [self._draw(row, uniform) for row in logits]

    def _penalised(self, logits: Tensor, seen: Sequence[Sequence[int]]) -> Tensor:
        logits, penalty = logits.clone(), self.sampling.repetition_penalty
        for row, tokens in zip(logits, seen, strict=True):
            places = torch.tensor(sorted(set(tokens)), device=row.device)
            values = row[places]
            row[places] = torch.where(values > 0, values / penalty, values * penalty)
        return logits

    def _draw(self, logits: Tensor, uniform: float) -> int:
        probabilities = (logits / self.sampling.temperature).softmax(-1)
        allowed = self._allowed(probabilities)
        if allowed is None:
            weights = probabilities
        else:
            allowed = allowed.sort().values  # in token order, so that rows with small differences still choose alike
            weights = probabilities[allowed]
        cumulative = weights.double().cumsum(-1)
        place = int(torch.searchsorted(cumulative, cumulative[-1:] * uniform, right=True))
        place = min(place, len(weights) - 1)
        return place if allowed is None else int(allowed[place])

    def _allowed(self, probabilities: Tensor) -> Tensor | None:
        """The ids of the tokens that top-k and top-p allow, the most likely first; None: all."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if top_k is None and top_p == 1.0:
            return None
        count = len(probabilities)
        limit = min(top_k or count, count)
        guess = min(limit, _NUCLEUS_GUESS) if top_p < 1.0 else limit
        values, ids = probabilities.topk(guess)
        if top_p == 1.0:
            return ids
        total = 1.0 if limit == count else float(probabilities.topk(limit).values.double().sum())
        if guess < limit and float(values.double().sum()) < top_p * total:
            values, ids = probabilities.topk(limit)
        before = values.double().cumsum(-1) - values.double()
        return ids[before < top_p * total]

"""The activations of a contrast set: every neuron at the last token of every prompt, and their statistics.

Everything that selects neurons (scores, universal neurons, dropped prompts, shuffled labels) uses these and never the
model.
"""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.cached import ResultCache
from cna_core.circuits.tensor_file import TEXTS, float64, line, load_tensors, numbers, save_tensors
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.prompts.sets import ContrastSet, PromptSet

FORMAT = "cna-activations/2"
TOP_FRACTION = 0.02
"""The share of all neurons that each prompt's ranking in `Activations.top` keeps."""
_COLUMNS_AT_ONCE = 1 << 13  # the float64 copies stay in the processor's cache


@dataclass(frozen=True)
class ClassSums:
    """Sums over the prompts of one class, precise enough that prompts can be subtracted again.

    Args:
        prompts: the number of prompts summed.
        total, squares: (neurons,) float64: sums of the activations and of their squares.
    """

    prompts: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def over(cls, values: Tensor) -> "ClassSums":
        """Sums over the rows of `values` (prompts, neurons)."""
        total = np.empty(values.shape[1])
        squares = np.empty(values.shape[1])
        for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
            columns = slice(start, start + _COLUMNS_AT_ONCE)
            part = values[:, columns].double()
            total[columns] = part.sum(0).numpy()
            squares[columns] = part.square_().sum(0).numpy()
        return cls(len(values), total, squares)

    def less(self, values: Tensor) -> "ClassSums":
        """The sums without the rows of `values` (prompts, neurons)."""
        if not len(values):
            return self
        gone = ClassSums.over(values)
        return ClassSums(self.prompts - gone.prompts, self.total - gone.total, self.squares - gone.squares)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """(neurons,) float64."""
        return self.total / self.prompts

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """(neurons,) float64: the unbiased variance (over prompts − 1); 0 for a single prompt."""
        if self.prompts < 2:
            return np.zeros_like(self.total)
        return np.maximum(self.squares - self.total * self.mean, 0) / (self.prompts - 1)


@dataclass(frozen=True)
class ResidualMeans:
    """Means of the residual stream at the last token, over the prompts of each class.

    Args:
        positive_input_mean, negative_input_mean: (layers, hidden) float32, of each layer's input.
        mlp_difference: (layers, hidden) float32: mean MLP output on positive prompts minus that on negative ones.
    """

    positive_input_mean: NDArray[np.float32]
    negative_input_mean: NDArray[np.float32]
    mlp_difference: NDArray[np.float32]

    @classmethod
    def over(cls, positive: Tensor, negative: Tensor) -> "ResidualMeans":
        """The means of values (prompts, 2, layers, hidden): layer inputs and MLP outputs."""
        first, second = (values.double().mean(0).numpy() for values in (positive, negative))
        return cls(first[0].astype(np.float32), second[0].astype(np.float32), (first[1] - second[1]).astype(np.float32))


@dataclass(frozen=True)
class Activations:
    """The neurons of a model at the last token of every prompt of a contrast set; made by `of_values`.

    Args:
        model: the model that they were recorded on.
        positive, negative: the prompts.
        sha256: the contrast set's hash.
        recorded: (at least prompts, total neurons) on the CPU in the dtype they were captured in.
        positive_sums, negative_sums: sums over each class.
        rows: (prompts,) int64: the rows of `recorded` that belong to these prompts; None for all, in order.
        recorded_residual: (at least prompts, 2, layers, hidden) likewise: each layer's input and its MLP's output; None
            if they were not recorded.
    """

    model: ModelIdentity
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    sha256: str
    recorded: Tensor
    positive_sums: ClassSums
    negative_sums: ClassSums
    rows: NDArray[np.int64] | None = None
    recorded_residual: Tensor | None = None

    def __repr__(self) -> str:
        sides = f"{len(self.positive)} positive and {len(self.negative)} negative prompts"
        return f"Activations({sides} on {self.model.describe()})"

    @classmethod
    def of_values(
        cls,
        model: ModelIdentity,
        positive: tuple[str, ...],
        negative: tuple[str, ...],
        sha256: str,
        values: Tensor,
        residual: Tensor | None = None,
    ) -> "Activations":
        """Make activations from `values` (prompts, total neurons), positive prompts first, and compute the sums.

        Raises:
            CircuitError: the values do not have a row for every prompt and a column for every neuron, or are not
                finite.
        """
        expected = (len(positive) + len(negative), model.layout.total)
        if tuple(values.shape) != expected:
            raise CircuitError(f"Activations have the shape {tuple(values.shape)}, but must have {expected}.")
        boundary = len(positive)
        sums = ClassSums.over(values[:boundary]), ClassSums.over(values[boundary:])
        if not all(np.isfinite(part.total).all() for part in sums):
            raise CircuitError(
                f"Some activations of {model.name} are not finite in {model.dtype}; load it in bfloat16 or float32."
            )
        return cls(model, positive, negative, sha256, values, *sums, recorded_residual=residual)

    @cached_property
    def values(self) -> Tensor:
        """(prompts, total) on the CPU in the dtype they were captured in; positive prompts first.

        If prompts were left out, this copies them on first use; the statistics do not need it.
        """
        return self.recorded if self.rows is None else self.recorded[torch.from_numpy(self.rows)]

    @cached_property
    def residual(self) -> ResidualMeans:
        """The residual stream's means over each class.

        Raises:
            CircuitError: it was not recorded.
        """
        if self.recorded_residual is None:
            raise CircuitError("The residual stream was not recorded with these activations; capture them again.")
        rows = self.recorded_residual if self.rows is None else self.recorded_residual[torch.from_numpy(self.rows)]
        positive = torch.from_numpy(self.is_positive)
        return ResidualMeans.over(rows[positive], rows[~positive])

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, the positive ones first, as the rows of `values`."""
        return self.positive + self.negative

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """(prompts,) bool, in the order of the rows."""
        return np.arange(len(self.prompts)) < len(self.positive)

    @cached_property
    def positive_mean(self) -> NDArray[np.float32]:
        """(total,) float32."""
        return self.positive_sums.mean.astype(np.float32)

    @cached_property
    def negative_mean(self) -> NDArray[np.float32]:
        """(total,) float32."""
        return self.negative_sums.mean.astype(np.float32)

    @cached_property
    def delta(self) -> NDArray[np.float32]:
        """(total,) float32: mean over the positive prompts minus mean over the negative ones (docs/method.md)."""
        return (self.positive_sums.mean - self.negative_sums.mean).astype(np.float32)

    @cached_property
    def effect_size(self) -> NDArray[np.float32]:
        """(total,) float32: δ over the pooled standard deviation (Cohen's d); 0 where that is 0."""
        first, second = self.positive_sums, self.negative_sums
        freedom = max(first.prompts + second.prompts - 2, 1)
        pooled = ((first.prompts - 1) * first.variance + (second.prompts - 1) * second.variance) / freedom
        deviation = np.sqrt(pooled)
        difference = first.mean - second.mean
        effect = np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)
        return effect.astype(np.float32)

    @cached_property
    def top(self) -> NDArray[np.int32]:
        """(prompts, ceil(2 % of total)) int32: each prompt's neurons by |a|, the largest first, ties by position."""
        return largest(self.values, math.ceil(TOP_FRACTION * self.values.shape[1]))

    def without(self, prompt_indices: Collection[int]) -> "Activations":
        """The activations without some prompts (rows of `values`), which are subtracted from the sums.

        Raises:
            CircuitError: no positive or no negative prompt would be left, or a row does not exist.
        """
        rows = np.arange(len(self.prompts)) if self.rows is None else self.rows
        gone = np.zeros(len(rows), dtype=bool)
        try:
            gone[list(prompt_indices)] = True
        except IndexError as error:
            raise CircuitError(f"There are only {len(rows)} prompts to leave out.") from error
        kept, boundary = np.flatnonzero(~gone), len(self.positive)
        positive = tuple(self.prompts[row] for row in kept if row < boundary)
        negative = tuple(self.prompts[row] for row in kept if row >= boundary)
        if not positive or not negative:
            raise CircuitError("At least one positive and one negative prompt must remain; leave out fewer prompts.")
        contrast = ContrastSet(PromptSet("positive", positive), PromptSet("negative", negative))
        result = Activations(
            self.model,
            positive,
            negative,
            contrast.sha256,
            self.recorded,
            self.positive_sums.less(self.recorded[torch.from_numpy(rows[:boundary][gone[:boundary]])]),
            self.negative_sums.less(self.recorded[torch.from_numpy(rows[boundary:][gone[boundary:]])]),
            rows[kept],
            self.recorded_residual,
        )
        if "top" in self.__dict__:  # a prompt's ranking does not depend on the others
            result.__dict__["top"] = self.top[kept]
        return result

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, completely or not at all."""
        tensors = {
            "values": self.values,
            "top": torch.from_numpy(self.top),
            "positive_total": torch.from_numpy(self.positive_sums.total),
            "positive_squares": torch.from_numpy(self.positive_sums.squares),
            "negative_total": torch.from_numpy(self.negative_sums.total),
            "negative_squares": torch.from_numpy(self.negative_sums.squares),
        }
        if self.recorded_residual is not None:
            rows = self.recorded_residual if self.rows is None else self.recorded_residual[torch.from_numpy(self.rows)]
            tensors["residual"] = rows
        about = {
            "model": self.model.model_dump_json(),
            "positive": json.dumps(self.positive),
            "negative": json.dumps(self.negative),
            "sha256": self.sha256,
        }
        return save_tensors(Path(path), FORMAT, tensors, about)

    @classmethod
    def load(cls, path: str | Path) -> "Activations":
        """Read a file written by `save`.

        Raises:
            CircuitError: the file is missing, damaged, or of another format.
        """
        tensors, about = load_tensors(Path(path), FORMAT)
        try:
            positive, negative = (TEXTS.validate_json(about[name]) for name in ("positive", "negative"))
            model = ModelIdentity.model_validate_json(about["model"])
            count, total = len(positive) + len(negative), model.layout.total
            if not positive or not negative:
                raise ValueError("a side has no prompts")
            first, second = (
                ClassSums(
                    len(prompts), float64(tensors[f"{side}_total"], total), float64(tensors[f"{side}_squares"], total)
                )
                for side, prompts in (("positive", positive), ("negative", negative))
            )
            residual = tensors.get("residual")
            if residual is not None:
                numbers(residual, count, 2, model.layers, None, finite=False)
            result = cls(
                model,
                positive,
                negative,
                line(about["sha256"]),
                numbers(tensors["values"], count, total),
                first,
                second,
                recorded_residual=residual,
            )
            result.__dict__["top"] = _ranking(tensors["top"], count, total)
        except (KeyError, ValueError) as error:
            raise CircuitError(f"{Path(path).name} does not hold activations ({error}); capture them again.") from error
        return result


def _ranking(top: Tensor, count: int, total: int) -> NDArray[np.int32]:
    if top.dtype != torch.int32 or tuple(top.shape) != (count, math.ceil(TOP_FRACTION * total)):
        raise ValueError(f"the ranking is {top.dtype} of the shape {tuple(top.shape)}")
    ranked: NDArray[np.int32] = top.numpy()
    if ranked.size and not 0 <= ranked.min() <= ranked.max() < total:
        raise ValueError("the ranking has neurons that the model does not have")
    return ranked


def largest(values: Tensor, count: int) -> NDArray[np.int32]:
    """(rows, count) int32: positions of each row's `count` largest magnitudes, largest first, ties by position.

    Floating-point magnitudes have the same order as their bits without the sign, and integers can be partitioned and
    sorted much faster than bfloat16.
    """
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    bits = values.contiguous().view(integer).numpy()
    magnitude = np.iinfo(bits.dtype).max  # every bit but the sign
    found = np.empty((len(bits), count), dtype=np.int32)
    for row, pattern in enumerate(bits):
        keys = pattern & magnitude
        smallest = np.partition(keys, len(keys) - count)[len(keys) - count]
        candidates = np.flatnonzero(keys >= smallest)
        found[row] = candidates[np.argsort(-keys[candidates], kind="stable")[:count]]
    return found


CACHE = ResultCache("activations", ".safetensors", Activations.load, Activations.save, limit_bytes=8 << 30)
"""Activations of earlier captures, by everything that they depend on."""

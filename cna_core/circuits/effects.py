"""Measured effects of neurons on refusal: those of every prompt, their mean, and their distribution over layers.

The effect of a neuron on a prompt is −∂R/∂m at multiplier m = 1: the first-order estimate of the change in the refusal
log-odds R when the neuron is multiplied by 0 (attribution patching towards zero). If it is negative, the neuron pushes
towards refusal.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.cached import ResultCache
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.tensor_file import TEXTS, TOKENS, line, load_tensors, numbers, save_tensors
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity, NeuronLayout

FORMAT = "cna-effects/1"


def measured_layers(layout: NeuronLayout, settings: EffectSettings) -> int:
    """The number of first layers that are measured: all, or two thirds, rounded down, at least one."""
    return layout.layers if settings.layers == "all" else max(1, 2 * layout.layers // 3)


@dataclass(frozen=True)
class Effects:
    """The effects of a model's neurons on the refusal of prompts.

    Args:
        model: the model they were measured on.
        positive: the prompts, all of them refused by the unsteered model.
        negative: benign prompts, if `settings.contrast` asks for them; otherwise empty.
        sha256: the hash of the contrast set that the prompts come from.
        settings: how they were measured.
        openings: ids of the tokens that open refusals, ascending.
        values: (prompts, measured neurons) float32 on the CPU, positive prompts first: effects of the neurons of the
            first `layers` layers, which are the first on the model's flat neuron axis.
        log_odds: (prompts,) float32: R of the unsteered model.
    """

    model: ModelIdentity
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    sha256: str
    settings: EffectSettings
    openings: tuple[int, ...]
    values: Tensor
    log_odds: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.prompts), int(self.model.layout.offsets[self.layers]))
        if tuple(self.values.shape) != expected:
            raise CircuitError(f"Effects have the shape {tuple(self.values.shape)}, but must have {expected}.")

    def __repr__(self) -> str:
        measured = f"{len(self.prompts)} prompts, first {self.layers} layers"
        return f"Effects({measured} of {self.model.describe()})"

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, the positive ones first, as the rows of `values`."""
        return self.positive + self.negative

    @property
    def layers(self) -> int:
        """The number of first layers that were measured."""
        return measured_layers(self.model.layout, self.settings)

    @cached_property
    def effect(self) -> NDArray[np.float32]:
        """(total,) float32: the mean effect on positive prompts, minus that on negative prompts if there are any; NaN
        in layers that were not measured."""
        return self.effect_over(np.ones(len(self.prompts), dtype=bool))

    def effect_over(self, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(total,) float32: as `effect`, over some of the prompts; `chosen` is (prompts,) bool."""
        boundary = len(self.positive)
        mean = self.values[:boundary][torch.from_numpy(chosen[:boundary])].mean(0)
        if self.negative:
            mean = mean - self.values[boundary:][torch.from_numpy(chosen[boundary:])].mean(0)
        return _on_all_neurons(mean, self.model.layout)

    @cached_property
    def layer_shares(self) -> NDArray[np.float64]:
        """(layers,) float64, sum 1: each layer's share of the effect towards refusal, Σ max(−e, 0)."""
        return layer_shares(self.effect, self.model.layout)

    def without(self, prompts: NDArray[np.bool_]) -> "Effects":
        """The effects without some prompts; `prompts` is (prompts,) bool.

        Raises:
            CircuitError: no positive prompt would be left.
        """
        boundary, kept = len(self.positive), ~prompts
        if not kept[:boundary].any():
            raise CircuitError("At least one positive prompt must remain; leave out fewer prompts.")
        return replace(
            self,
            positive=tuple(text for text, stays in zip(self.positive, kept[:boundary], strict=True) if stays),
            negative=tuple(text for text, stays in zip(self.negative, kept[boundary:], strict=True) if stays),
            values=self.values[torch.from_numpy(kept)],
            log_odds=self.log_odds[kept],
        )

    def of_first_two_thirds(self) -> "Effects":
        """The same of the first two thirds of the layers alone; effects do not depend on which layers are measured."""
        settings = self.settings.model_copy(update={"layers": "first-two-thirds"})
        end = int(self.model.layout.offsets[measured_layers(self.model.layout, settings)])
        return replace(self, settings=settings, values=self.values[:, :end])

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, completely or not at all."""
        tensors = {"values": self.values, "log_odds": torch.from_numpy(self.log_odds)}
        about = {
            "model": self.model.model_dump_json(),
            "positive": json.dumps(self.positive),
            "negative": json.dumps(self.negative),
            "sha256": self.sha256,
            "settings": self.settings.model_dump_json(),
            "openings": json.dumps(self.openings),
        }
        return save_tensors(Path(path), FORMAT, tensors, about)

    @classmethod
    def load(cls, path: str | Path) -> "Effects":
        """Read a file written by `save`.

        Raises:
            CircuitError: the file is missing, damaged, or of another format.
        """
        tensors, about = load_tensors(Path(path), FORMAT)
        try:
            positive, negative = (TEXTS.validate_json(about[name]) for name in ("positive", "negative"))
            if not positive:
                raise ValueError("it has no positive prompts")
            count = len(positive) + len(negative)
            return cls(
                ModelIdentity.model_validate_json(about["model"]),
                positive,
                negative,
                line(about["sha256"]),
                EffectSettings.model_validate_json(about["settings"]),
                TOKENS.validate_json(about["openings"]),
                numbers(tensors["values"], count, None).float(),
                numbers(tensors["log_odds"], count).float().numpy(),
            )
        except (KeyError, ValueError) as error:
            raise CircuitError(f"{Path(path).name} does not hold effects ({error}); measure them again.") from error


def layer_shares(effect: NDArray[np.floating], layout: NeuronLayout) -> NDArray[np.float64]:
    """(layers,) float64, sum 1 (or all 0): each layer's share of Σ max(−e, 0); NaN effects count as 0."""
    towards = np.maximum(-np.nan_to_num(effect.astype(np.float64)), 0)
    sums = np.array([part.sum() for part in layout.split(towards)])
    return sums / (sums.sum() or 1.0)


def _on_all_neurons(values: Tensor, layout: NeuronLayout) -> NDArray[np.float32]:
    everywhere = np.full(layout.total, np.nan, dtype=np.float32)
    everywhere[: len(values)] = values.numpy()
    return everywhere


CACHE = ResultCache("effects", ".safetensors", Effects.load, Effects.save, limit_bytes=2 << 30)
"""Effects of earlier measurements, by everything that they depend on."""

"""A circuit: the neurons that were found, in rank order, with what they were found by. Data, a few verbs, and its file format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cna_core.models.layout import ModelIdentity

Score = Literal["delta", "effect-size"]


class CircuitSettings(BaseModel):
    """How a circuit is selected from activations; the descriptions are the help texts."""

    model_config = ConfigDict(frozen=True)

    score: Score = Field("delta", description="rank by |δ|, or by |effect size| (δ over the pooled standard deviation)")
    fraction: float | None = Field(0.001, gt=0, le=1, description="share of all neurons; ignored where top_k is given")
    top_k: int | None = Field(None, ge=1, description="number of neurons")
    skip_layers: int = Field(0, ge=0, description="first layers left out of the ranking")
    universal_threshold: float | None = Field(0.8, gt=0, le=1, description="share of prompts; None keeps universal neurons")
    universal_fraction: float = Field(0.001, gt=0, le=1, description="share of all neurons that counts as firing on a prompt")


class CircuitPrompts(BaseModel):
    """The contrast set a circuit was found with: sizes and hash, not the prompts."""

    model_config = ConfigDict(frozen=True)

    positive: int
    negative: int
    sha256: str


@dataclass(frozen=True)
class Circuit:
    """Neurons in rank order; every array is (n,).

    Args:
        model: the model it belongs to.
        settings: how it was selected; `settings.top_k` is its size.
        prompts: what it was found with.
        layers, neurons: int64.
        delta, positive_mean, negative_mean, effect_size: float32.
    """

    model: ModelIdentity
    settings: CircuitSettings
    prompts: CircuitPrompts
    layers: NDArray[np.int64]
    neurons: NDArray[np.int64]
    delta: NDArray[np.float32]
    positive_mean: NDArray[np.float32]
    negative_mean: NDArray[np.float32]
    effect_size: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def flat(self) -> NDArray[np.int64]:
        """(n,) positions on the flat neuron axis of the model's layout, in rank order."""
        return self.model.layout.flat(self.layers, self.neurons)

    @property
    def layer_counts(self) -> NDArray[np.int64]:
        """(layers,) int64: neurons of the circuit in each layer of the model."""
        return np.bincount(self.layers, minlength=self.model.layers)

    def concentration(self, final: float | int = 0.10) -> float:
        """Share of the circuit in the final part: a share of the layers (0.10), or a number of layers (3)."""
        return float((self.layers >= self.model.layout.first_layer_of_final(final)).mean())

    def overlap(self, other: "Circuit") -> float:
        """Jaccard index of the two sets of neurons, 0 to 1."""
        mine, theirs = set(self.flat.tolist()), set(other.flat.tolist())
        return len(mine & theirs) / len(mine | theirs)

    def save(self, path: str | Path) -> Path: ...

    @classmethod
    def load(cls, path: str | Path) -> "Circuit": ...

"""Contrastive Activation Addition (CAA): in each layer, a vector is added to the residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cna_core.interventions.change import RowChange
from cna_core.interventions.intervention import Colour, Intervention, Material
from cna_core.interventions.registry import register
from cna_core.models.layout import ModelIdentity


@register
@dataclass(frozen=True)
class Addition(Intervention):
    """Add −strength · vector to every layer's output at every token.

    A layer's vector is its mean MLP output on positive prompts minus that on negative ones, at the last token. The
    paper adds the difference and does not state the sign. Here a strength above 0 moves away from the positive prompts,
    as with every other method.

    Args:
        model: the model that the vectors were recorded on.
        vectors: (layers, hidden) float32.
    """

    model: ModelIdentity
    vectors: NDArray[np.float32]

    key = "caa"
    title = "Add steering vectors to the residual stream (CAA)"
    label = "CAA"
    colour: ClassVar[Colour] = "addition"
    strength_words: ClassVar[Mapping[float, str]] = {
        -1.0: "towards refusal",
        0.0: "baseline",
        1.0: "away from refusal",
        2.0: "twice as far",
    }

    @classmethod
    def fit(cls, material: Material) -> Self:
        activations = material.needed_activations(cls)
        return cls(material.model.identity, activations.residual.mlp_difference)

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        return RowChange(additions=np.float32(-float(strength)) * self.vectors)

    def twin(self, seed: int = 0) -> Self:
        return type(self)(self.model, random_of_same_lengths(self.vectors, seed))

    def describe(self) -> str:
        return f"{len(self.vectors)} layers"


def random_of_same_lengths(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Random vectors (n, hidden) float32 with the same lengths. The same seed gives the same vectors."""
    drawn = np.random.default_rng(seed).standard_normal(vectors.shape)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * lengths).astype(np.float32)

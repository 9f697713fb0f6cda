"""Direction ablation: one direction is taken out of everything that is written to the residual stream.

The direction is the difference of the means of the residual stream (positive − negative prompts, last token, input of
one layer), of length 1. Which layer's is chosen on discovery prompts alone. After Arditi et al. (2024), *Refusal in
Language Models Is Mediated by a Single Direction*, with the gate meter in place of their refusal score.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import CircuitError
from cna_core.interventions.addition import random_of_same_lengths
from cna_core.interventions.change import DirectionChange, RowChange
from cna_core.interventions.intervention import Colour, Intervention, Material
from cna_core.interventions.registry import register
from cna_core.models.layout import ModelIdentity

LATEST_LAYER = 0.8
"""Only directions from the inputs of the first 80 % of the layers are candidates."""
GREATEST_DIVERGENCE = 0.1
"""Nats: a candidate that changes the first token on negative prompts more than this is not taken."""


@register
@dataclass(frozen=True)
class Direction(Intervention):
    """x becomes x − strength · r (r · x) at every write to the residual stream, at every layer and token.

    Args:
        model: the model it was recorded on.
        direction: r, (hidden,) float32 of length 1.
        negative_mean: (hidden,) float32: the residual stream's mean on negative prompts, where r was taken.
        layer: the layer whose input r was taken from.
        refusal_chance, divergence: what ablating it did to discovery prompts (`TrialResult`); None for a twin.
    """

    model: ModelIdentity
    direction: NDArray[np.float32]
    negative_mean: NDArray[np.float32]
    layer: int
    refusal_chance: float | None = None
    divergence: float | None = None

    key = "direction"
    title = "Ablate the refusal direction of the residual stream"
    label = "Direction"
    colour: ClassVar[Colour] = "direction"

    @classmethod
    def fit(cls, material: Material) -> Self:
        candidates = cls.candidates(material)
        found = material.needed_trial(cls)(candidates)
        gentle = found.divergence < GREATEST_DIVERGENCE
        # Where no candidate is gentle enough, the gentlest is taken: a direction there is, and its cost is told.
        order = np.where(gentle, found.refusal_chance, 1.0 + found.divergence)
        best = int(np.argmin(order))
        chosen = candidates[best]
        return cls(
            chosen.model,
            chosen.direction,
            chosen.negative_mean,
            chosen.layer,
            float(found.refusal_chance[best]),
            float(found.divergence[best]),
        )

    @classmethod
    def candidates(cls, material: Material) -> list[Self]:
        """One for each layer whose input may give the direction, the first layer's first.

        Raises:
            CircuitError: positive and negative prompts do not differ anywhere.
        """
        residual = material.needed_activations(cls).residual
        found = []
        for layer in range(max(1, int(np.ceil(LATEST_LAYER * len(residual.positive_input_mean))))):
            difference = residual.positive_input_mean[layer] - residual.negative_input_mean[layer]
            length = float(np.linalg.norm(difference))
            if length > 0:
                unit = (difference / length).astype(np.float32)
                found.append(cls(material.model.identity, unit, residual.negative_input_mean[layer], layer))
        if not found:
            raise CircuitError("Positive and negative prompts leave the same residual stream: there is no direction.")
        return found

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        return RowChange(direction=DirectionChange(self.direction, float(strength), self.offset))

    @property
    def offset(self) -> float:
        """What is left along the direction in place of what is taken out."""
        return 0.0

    def twin(self, seed: int = 0) -> Self:
        random = random_of_same_lengths(self.direction[None], seed)[0]
        return type(self)(self.model, random, self.negative_mean, self.layer)

    def describe(self) -> str:
        return f"from the input of layer {self.layer} of {self.model.layers}"


@register
@dataclass(frozen=True)
class Affine(Direction):
    """Affine concept editing (ACE; Marshall et al. 2024): the direction is set to its mean on negative prompts, not
    to 0."""

    key = "affine"
    title = "Set the refusal direction to its mean on negative prompts (ACE)"
    label = "Affine"
    colour: ClassVar[Colour] = "affine"

    @property
    def offset(self) -> float:
        return float(self.direction @ self.negative_mean)

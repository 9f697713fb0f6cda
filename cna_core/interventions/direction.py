"""Direction ablation: one direction is projected out of everything that is written to the residual stream.

The direction is the unit difference of the residual stream's means (positive − negative prompts, last token, input of
one layer). The layer is chosen on discovery prompts only. After Arditi et al. (2024), *Refusal in Language Models Is
Mediated by a Single Direction*, with the gate meter instead of their refusal score.
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
"""In nats: candidates that change the first token on negative prompts more than this are not used."""


@register
@dataclass(frozen=True)
class Direction(Intervention):
    """x becomes x − strength · r (r · x) at every write to the residual stream, at every layer and token.

    Args:
        model: the model that it was recorded on.
        direction: r, (hidden,) float32 of length 1.
        negative_mean: (hidden,) float32: the residual stream's mean on negative prompts at the same place.
        layer: the layer at whose input r was recorded.
        refusal_chance, divergence: the effect of ablating it on discovery prompts (`TrialResult`); None for a twin.
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
        # If no candidate is gentle enough, take the gentlest; its divergence is reported.
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
        """One candidate for each layer whose input may give the direction, first layer first.

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
            raise CircuitError(
                "There is no direction, because the residual stream is the same on positive and negative prompts: use "
                "other prompts."
            )
        return found

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        return RowChange(direction=DirectionChange(self.direction, float(strength), self.offset))

    @property
    def offset(self) -> float:
        """The component along the direction that replaces what is removed."""
        return 0.0

    def twin(self, seed: int = 0) -> Self:
        random = random_of_same_lengths(self.direction[None], seed)[0]
        return type(self)(self.model, random, self.negative_mean, self.layer)

    def describe(self) -> str:
        return f"from the input of layer {self.layer} of {self.model.layers}"


@register
@dataclass(frozen=True)
class Affine(Direction):
    """Affine concept editing (ACE; Marshall et al. 2024): sets the direction to its mean on negative prompts."""

    key = "affine"
    title = "Set the refusal direction to its mean on negative prompts (ACE)"
    label = "Affine"
    colour: ClassVar[Colour] = "affine"

    @property
    def offset(self) -> float:
        return float(self.direction @ self.negative_mean)

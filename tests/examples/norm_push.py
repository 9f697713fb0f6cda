"""A method from outside the project, in one file: the tests show that nothing else needs to know it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cna_core.interventions.addition import random_of_same_lengths
from cna_core.interventions.change import RowChange
from cna_core.interventions.intervention import Intervention, Material
from cna_core.interventions.registry import register
from cna_core.models.layout import ModelIdentity


@register
@dataclass(frozen=True)
class NormPush(Intervention):
    """Subtract strength · the mean residual stream of negative prompts at the output of every layer."""

    model: ModelIdentity
    vectors: NDArray[np.float32]

    key = "norm_push"
    title = "Push the residual stream away from its mean on negative prompts"
    label = "Push"

    @classmethod
    def fit(cls, material: Material) -> Self:
        return cls(material.model.identity, material.needed_activations(cls).residual.negative_input_mean)

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        return RowChange(additions=np.float32(-float(strength)) * self.vectors)

    def twin(self, seed: int = 0) -> Self:
        return type(self)(self.model, random_of_same_lengths(self.vectors, seed))

"""Mean ablation: the circuit's neurons move towards their mean on negative prompts."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.controls import random_circuit
from cna_core.errors import CircuitError
from cna_core.interventions.change import NeuronChange, RowChange
from cna_core.interventions.intervention import Colour, Material
from cna_core.interventions.registry import register
from cna_core.interventions.scale import Scale, per_neuron


@register
@dataclass(frozen=True)
class Mean(Scale):
    """a becomes (1 − strength) · a + strength · (its mean on negative prompts, at the last token).

    Args:
        circuit: the neurons to change, with their means.
        activations: needed for the means of the random twin's neurons.
    """

    activations: Activations | None = None

    key = "mean"
    title = "Move the circuit's neurons to their mean on negative prompts"
    label = "Mean"
    uses_prompts = True
    colour: ClassVar[Colour] = "mean"

    def __post_init__(self) -> None:
        if not np.isfinite(self.circuit.negative_mean).all():
            raise CircuitError(
                "This circuit does not contain its neurons' means on negative prompts, which mean ablation needs: find "
                "the circuit again on this model."
            )

    @classmethod
    def fit(cls, material: Material) -> Self:
        return cls(material.needed_circuit(cls), material.record() if material.record else None)

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        share = per_neuron(np.asarray(strength, dtype=np.float32), self.circuit)
        additions = share * self.circuit.negative_mean
        return RowChange(NeuronChange(self.circuit.layers, self.circuit.neurons, 1 - share, additions))

    def twin(self, seed: int = 0) -> Self:
        if self.activations is None:
            raise CircuitError("The random twin of mean ablation needs activations: fit it with cna_core.fit.")
        return type(self)(random_circuit(self.circuit, seed, self.activations), self.activations)

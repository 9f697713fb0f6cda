"""The paper's method: multiply the circuit's neurons by 1 − strength at every token."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import random_circuit
from cna_core.errors import CircuitError
from cna_core.interventions.change import NeuronChange, RowChange
from cna_core.interventions.intervention import Colour, Intervention, Material
from cna_core.interventions.registry import register
from cna_core.models.layout import ModelIdentity


@register
@dataclass(frozen=True)
class Scale(Intervention):
    """Multiply each neuron of a circuit by 1 − strength (Herring, Naviasky, Malhotra 2026).

    Args:
        circuit: the neurons to multiply.
    """

    circuit: Circuit

    key = "scale"
    title = "Scale the circuit's neurons"
    label = "CNA"
    colour: ClassVar[Colour] = "steered"
    uses_circuit = True
    uses_prompts = False

    @property
    def model(self) -> ModelIdentity:  # type: ignore[override]
        return self.circuit.model

    @classmethod
    def fit(cls, material: Material) -> Self:
        return cls(material.needed_circuit(cls))

    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        multipliers = per_neuron(1.0 - np.asarray(strength, dtype=np.float32), self.circuit)
        return RowChange(NeuronChange(self.circuit.layers, self.circuit.neurons, multipliers, multipliers * 0))

    def twin(self, seed: int = 0) -> Self:
        return type(self)(random_circuit(self.circuit, seed))

    def check_model(self, identity: ModelIdentity) -> None:
        self.circuit.check_model(identity)

    def describe(self) -> str:
        return f"{len(self.circuit):,} neurons"


def per_neuron(values: NDArray[np.float32], circuit: Circuit) -> NDArray[np.float32]:
    """(n,) float32, one value for each neuron of the circuit, from one value or n.

    Raises:
        CircuitError: there are neither 1 nor n values.
    """
    if values.ndim > 1 or values.size not in (1, len(circuit)):
        raise CircuitError(f"Give one multiplier or {len(circuit)}, one for each neuron, not {values.size}.")
    return np.broadcast_to(values, len(circuit)).astype(np.float32)

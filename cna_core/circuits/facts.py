"""The statistics of one neuron from recorded activations, for its card."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import auc
from cna_core.circuits.evidence import Evidence
from cna_core.errors import CircuitError


@dataclass(frozen=True)
class NeuronFacts:
    """One neuron.

    Args:
        layer, neuron: the neuron.
        values: (prompts,) float32, its activation on every prompt.
        delta, positive_mean, negative_mean, effect_size, auc: as in docs/method.md.
        rank: its rank in the circuit, from 1; None if it is not in it.
        strength_rank: its rank among all neurons by |δ|, from 1.
        selection_frequency: how often half of the prompts select it; None if unknown.
        is_universal: whether it is a universal neuron that was left out.
    """

    layer: int
    neuron: int
    values: NDArray[np.float32]
    delta: float
    positive_mean: float
    negative_mean: float
    effect_size: float
    auc: float
    rank: int | None
    strength_rank: int
    selection_frequency: float | None
    is_universal: bool


def neuron_facts(
    activations: Activations, circuit: Circuit, layer: int, neuron: int, evidence: Evidence | None = None
) -> NeuronFacts:
    """The statistics of one neuron, with its rank in a circuit.

    Args:
        activations: the activations.
        circuit: the circuit.
        layer, neuron: the neuron.
        evidence: gives selection frequency and universality, if it was computed.

    Raises:
        CircuitError: the model has no such neuron.
    """
    if not has_neuron(activations, layer, neuron):
        raise CircuitError(f"{activations.model.name} has no neuron {neuron} in layer {layer}; choose another.")
    flat = int(activations.model.layout.flat(np.array([layer]), np.array([neuron]))[0])
    position = circuit.position_of(layer, neuron)
    frequency = evidence.selection_frequency if evidence is not None else None
    return NeuronFacts(
        layer=layer,
        neuron=neuron,
        values=activations.values[:, flat].float().numpy(),
        delta=float(activations.delta[flat]),
        positive_mean=float(activations.positive_mean[flat]),
        negative_mean=float(activations.negative_mean[flat]),
        effect_size=float(activations.effect_size[flat]),
        auc=float(auc(activations, np.array([flat]))[0]),
        rank=None if position is None else position + 1,
        strength_rank=1 + int((np.abs(activations.delta) > abs(activations.delta[flat])).sum()),
        selection_frequency=None if position is None or frequency is None else float(frequency[position]),
        is_universal=evidence is not None and flat in evidence.left_out,
    )


def has_neuron(activations: Activations, layer: int, neuron: int) -> bool:
    """Whether the model has this neuron."""
    widths = activations.model.layout.widths
    return 0 <= layer < len(widths) and 0 <= neuron < widths[layer]

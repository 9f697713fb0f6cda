"""The facts on a neuron's card."""

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.controls import auc
from cna_core.circuits.evidence import examine
from cna_core.circuits.facts import has_neuron, neuron_facts
from cna_core.errors import CircuitError
from tests.circuits.samples import random_activations

ACTIVATIONS = random_activations()
CIRCUIT = attribute(ACTIVATIONS, top_k=10)


def test_a_circuit_neurons_facts_are_the_circuits() -> None:
    evidence = examine(ACTIVATIONS, CIRCUIT)
    facts = neuron_facts(ACTIVATIONS, CIRCUIT, int(CIRCUIT.layers[2]), int(CIRCUIT.neurons[2]), evidence)
    assert facts.rank == facts.strength_rank == 3
    assert facts.delta == CIRCUIT.delta[2] and facts.effect_size == CIRCUIT.effect_size[2]
    assert facts.auc == auc(ACTIVATIONS, CIRCUIT.flat)[2] == evidence.auc[2]
    assert evidence.selection_frequency is not None
    assert facts.selection_frequency == evidence.selection_frequency[2]
    np.testing.assert_array_equal(facts.values, ACTIVATIONS.values[:, CIRCUIT.flat[2]].numpy())


def test_any_other_neuron_has_facts_but_no_rank() -> None:
    weakest = int(np.abs(ACTIVATIONS.delta).argmin())
    layer, neuron = (int(part[0]) for part in ACTIVATIONS.model.layout.locate(np.array([weakest])))
    facts = neuron_facts(ACTIVATIONS, CIRCUIT, layer, neuron)
    assert facts.rank is None and facts.selection_frequency is None and not facts.is_universal
    assert facts.strength_rank == ACTIVATIONS.model.layout.total


def test_a_universal_neuron_is_said_to_be_one() -> None:
    circuit = attribute(ACTIVATIONS, top_k=10, universal_threshold=0.2, universal_fraction=0.05)
    evidence = examine(ACTIVATIONS, circuit)
    layers, neurons = ACTIVATIONS.model.layout.locate(evidence.left_out)
    assert neuron_facts(ACTIVATIONS, circuit, int(layers[0]), int(neurons[0]), evidence).is_universal


@pytest.mark.parametrize(("layer", "neuron"), [(4, 0), (0, 20), (-1, 0), (0, -1)])
def test_a_neuron_that_does_not_exist_is_told(layer: int, neuron: int) -> None:
    assert not has_neuron(ACTIVATIONS, layer, neuron)
    with pytest.raises(CircuitError, match="has no neuron"):
        neuron_facts(ACTIVATIONS, CIRCUIT, layer, neuron)

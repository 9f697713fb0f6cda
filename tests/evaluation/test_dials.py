import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.errors import CircuitError, RunError
from cna_core.evaluation.dials import circuits_by_fraction, dials_for, first_neurons, fraction_of
from cna_core.evaluation.setting import BASELINE, Setting, Treatment
from cna_core.interventions.scale import Scale
from tests.circuits.samples import circuit_of, random_activations
from tests.evaluation.sweeping import CONTRAST, small_circuit, small_model


def test_smaller_circuits_are_the_beginning_of_the_ranking_as_if_selected_anew() -> None:
    activations = random_activations()
    large = attribute(activations, fraction=0.1)
    found = circuits_by_fraction(large, [0.05, 0.1])
    assert found[0.1] is large
    np.testing.assert_array_equal(found[0.05].flat, attribute(activations, fraction=0.05).flat)


def test_larger_circuits_need_the_activations_and_keep_the_settings() -> None:
    activations = random_activations()
    small = attribute(activations, fraction=0.05, skip_layers=2, universal_threshold=None)
    with pytest.raises(CircuitError, match="find a larger circuit"):
        circuits_by_fraction(small, [0.1])
    large = circuits_by_fraction(small, [0.1], activations)[0.1]
    expected = attribute(activations, fraction=0.1, skip_layers=2, universal_threshold=None)
    np.testing.assert_array_equal(large.flat, expected.flat)


def test_activations_alone_give_the_papers_size() -> None:
    activations = random_activations()
    assert list(circuits_by_fraction(activations)) == [0.001]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.6])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(CircuitError, match="between 0 and 50 %"):
        circuits_by_fraction(random_activations(), [fraction])


def test_a_circuit_of_a_number_of_neurons_has_its_share_of_all() -> None:
    circuit = circuit_of([(0, 0), (1, 1), (2, 2)])  # 3 of 24
    assert fraction_of(circuit) == 0.125
    assert len(first_neurons(circuit, 2)) == 2


def test_lanes_are_steered_as_their_setting_says() -> None:
    model = small_model()
    circuit = small_circuit(model)
    dials = dials_for(model, {0.125: circuit}, [Treatment("random", "scale"), Treatment("caa")], 0, CONTRAST)
    messages = [{"role": "user", "content": "cats"}]
    assert dials.lane(messages, BASELINE).change(model, None).is_neutral
    mine = dials.lane(messages, Setting("scale", 1.5, 0.125))
    assert isinstance(mine.method, Scale) and mine.method.circuit is circuit
    assert mine.strength == 1.5
    random = dials.lane(messages, Setting("random", 1.0, 0.125, twin_of="scale"))
    assert isinstance(random.method, Scale)
    assert not set(random.method.circuit.flat.tolist()) & set(circuit.flat.tolist())
    np.testing.assert_array_equal(random.method.circuit.layer_counts, circuit.layer_counts)
    caa = dials.lane(messages, Setting("caa", 0.5)).change(model, None)
    assert caa.additions is not None and caa.neurons is None


def test_caa_without_prompts_is_refused() -> None:
    model = small_model()
    with pytest.raises(RunError, match="discovery prompts"):
        dials_for(model, {0.125: small_circuit(model)}, [Treatment("caa")], 0, None)

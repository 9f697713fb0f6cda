import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.controls import mass_per_layer
from cna_core.circuits.differ_and_act import DifferAndAct, differ_and_act
from cna_core.circuits.evidence import cutoff, examine
from tests.circuits.samples import random_activations, random_effects

ACTIVATIONS = random_activations()


def test_both_circuits_have_the_size_and_share_what_both_hold() -> None:
    measured = random_effects()
    found = differ_and_act(ACTIVATIONS, measured, 9)
    assert len(found.by_delta) == len(found.by_effect) == 9
    assert found.shared == round(found.by_delta.overlap(found.by_effect) * (18 - found.shared))
    np.testing.assert_allclose(found.mass, mass_per_layer(ACTIVATIONS))
    np.testing.assert_allclose(found.effect_shares, measured.layer_shares)


def test_a_size_beyond_what_pushes_towards_refusal_is_cut() -> None:
    measured = random_effects()
    most = int((measured.effect < 0).sum())
    assert len(differ_and_act(ACTIVATIONS, measured, 70).by_effect) == min(70, most)


def test_layers_are_named_by_their_share() -> None:
    layers, share = DifferAndAct.strongest(np.array([0.1, 0.5, 0.1, 0.3]), 2)
    assert (layers, share) == ([1, 3], pytest.approx(0.8))


def test_the_first_two_thirds_of_effects_are_those_measured_there() -> None:
    measured = random_effects()
    early = measured.of_first_two_thirds()
    assert early.layers == 2 and early.settings.layers == "first-two-thirds"
    np.testing.assert_allclose(early.effect[:40], measured.effect[:40], rtol=1e-5)
    assert np.isnan(early.effect[40:]).all()


def test_a_circuit_by_effect_has_no_shuffled_labels_and_halves_of_its_own_prompts() -> None:
    measured = random_effects()
    circuit = attribute(measured, fraction=None, top_k=5)
    evidence = examine(ACTIVATIONS, circuit, effects=measured)
    assert evidence.null is None and evidence.null_mass is None
    assert evidence.stability is not None and len(evidence.stability.selection_frequency) == 5
    assert cutoff(ACTIVATIONS, circuit) == pytest.approx(abs(circuit.effect[-1]))
    assert examine(ACTIVATIONS, circuit).stability is None

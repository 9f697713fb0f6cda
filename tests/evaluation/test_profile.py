import threading

import numpy as np
import pytest

from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.errors import StoppedError
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.evaluation.profile import CausalProfile, causal_profile
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import circuit_of
from tests.evaluation.sweeping import HARMFUL, small_circuit, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture(scope="module")
def openings(model: LoadedModel) -> RefusalOpenings:
    seen = np.full(10, 4.0)
    return RefusalOpenings(model.identity, "ab", np.arange(7, 17), seen * (np.arange(10) % 2), seen)


def test_each_row_ablates_its_part_of_the_circuit(model: LoadedModel, openings: RefusalOpenings) -> None:
    circuit = small_circuit(model)
    profile = causal_profile(model, circuit, HARMFUL.prompts, openings, random_circuits=2)
    np.testing.assert_array_equal(profile.layers, np.unique(circuit.layers))
    assert profile.random.shape == (3, len(profile.layers), 2)

    def chance(prompt: str, strength: np.ndarray | float) -> float:
        return float(openings.chance(first_token_logits(model, [Lane(prompt, strength=strength)], circuit))[0])

    for row, prompt in enumerate(HARMFUL):
        assert profile.baseline[row] == pytest.approx(chance(prompt, 0.0), abs=1e-5)
        assert profile.whole[row] == pytest.approx(chance(prompt, 1.0), abs=1e-5)
        for place, layer in enumerate(profile.layers):
            here = (circuit.layers == layer).astype(float)
            assert profile.alone[row, place] == pytest.approx(chance(prompt, here), abs=1e-5)
            assert profile.others[row, place] == pytest.approx(chance(prompt, 1 - here), abs=1e-5)


def test_a_circuit_in_one_layer_does_all_of_it_there(model: LoadedModel, openings: RefusalOpenings) -> None:
    circuit = circuit_of([(2, 1), (2, 5), (2, 9)], model.identity)
    profile = causal_profile(model, circuit, HARMFUL.prompts, openings)
    np.testing.assert_allclose(profile.alone[:, 0], profile.whole)
    np.testing.assert_allclose(profile.others[:, 0], profile.baseline)
    assert profile.alone_changes[0] == pytest.approx(tuple(profile.whole_change))
    over_all = profile.over_all_layers()
    assert np.isnan(over_all[[0, 1, 3]]).all()
    assert over_all[2] == profile.whole_change.value


def test_strength_zero_changes_nothing(model: LoadedModel, openings: RefusalOpenings) -> None:
    profile = causal_profile(model, small_circuit(model), HARMFUL.prompts, openings, strength=0.0)
    np.testing.assert_allclose(profile.alone_changes, 0, atol=1e-12)
    np.testing.assert_allclose(profile.random_band, 0, atol=1e-12)


def test_changes_and_bands_worked_by_hand() -> None:
    profile = CausalProfile(
        layers=np.array([1, 3]),
        strength=1.0,
        baseline=np.array([0.8, 0.6]),
        whole=np.array([0.2, 0.0]),
        alone=np.array([[0.7, 0.3], [0.5, 0.1]]),
        others=np.array([[0.3, 0.7], [0.1, 0.5]]),
        random=np.array([[[0.8, 0.9], [0.8, 0.8]], [[0.6, 0.7], [0.6, 0.6]]]),
        layer_counts=np.array([1, 4]),
        model_layers=5,
    )
    assert profile.whole_change.value == pytest.approx(-0.6)
    np.testing.assert_allclose(profile.alone_changes[:, 0], [-0.1, -0.5])
    np.testing.assert_allclose(profile.others_changes[:, 0], [-0.5, -0.1])
    np.testing.assert_allclose(profile.random_band, [[0.05, 0.0, 0.1], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(profile.over_all_layers(), [np.nan, -0.1, np.nan, -0.5, np.nan])
    assert profile.strongest(1) == [(3, pytest.approx(-0.5))]
    assert [layer for layer, _ in profile.strongest(9)] == [3, 1]
    alone, random = profile.bands()
    np.testing.assert_allclose(alone[1], profile.over_all_layers())
    np.testing.assert_allclose(alone[0][[1, 3]], profile.alone_changes[:, 1])
    np.testing.assert_allclose(alone[2][[1, 3]], profile.alone_changes[:, 2])
    np.testing.assert_allclose(random, [[np.nan, low, np.nan, 0, np.nan] for low in (0.0, 0.05, 0.1)], atol=1e-12)


def test_the_profile_so_far_is_shown_and_it_stops_when_asked(model: LoadedModel, openings: RefusalOpenings) -> None:
    stop = threading.Event()
    seen: list[CausalProfile] = []

    def stop_after_two(profile: CausalProfile) -> None:
        seen.append(profile)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(StoppedError):
        causal_profile(model, small_circuit(model), HARMFUL.prompts, openings, partial=stop_after_two, stop=stop)
    assert [profile.prompts for profile in seen] == [1, 2]


def test_without_random_circuits_there_is_no_band(model: LoadedModel, openings: RefusalOpenings) -> None:
    profile = causal_profile(model, small_circuit(model), HARMFUL.prompts[:1], openings, random_circuits=0)
    assert np.isnan(profile.random_band).all()
    assert profile.random_band.shape == (len(profile.layers), 3)

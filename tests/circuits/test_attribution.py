"""Selection of circuits and universal neurons from recorded activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cna_core.circuits.attribution import attribute, top_neurons, universal_neurons, with_statistics
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from tests.circuits.samples import activations_of, circuit_of, identity, random_activations

# Two layers of three neurons; δ by hand: [3, -4, 0 | 1, 0.5, -2]
POSITIVE = np.array([[4, 0, 9, 1, 1, 0], [2, -2, 9, 3, 1, 0]], dtype=float)
NEGATIVE = np.array([[0, 3, 9, 1, 1, 2], [0, 3, 9, 1, 0, 2]], dtype=float)
HAND = activations_of(POSITIVE, NEGATIVE, identity(3, layers=2))


def test_delta_ranks_neurons_over_all_layers_together() -> None:
    circuit = attribute(HAND, top_k=3, universal_threshold=None)
    assert list(zip(circuit.layers, circuit.neurons, strict=True)) == [(0, 1), (0, 0), (1, 2)]
    assert circuit.delta.tolist() == [-4, 3, -2]
    assert circuit.positive_mean.tolist() == [-1, 3, 0]
    assert circuit.negative_mean.tolist() == [3, 0, 2]
    assert circuit.settings.top_k == 3 and circuit.prompts.positive == 2


def test_effect_size_ranks_by_delta_over_the_pooled_deviation() -> None:
    circuit = attribute(HAND, top_k=2, score="effect-size", universal_threshold=None)
    # variances: neuron (0, 1) 2 and 0, pooled 1: -4; neuron (0, 0) 2 and 0: 3; (1, 2) has none, so 0
    assert list(zip(circuit.layers, circuit.neurons, strict=True)) == [(0, 1), (0, 0)]
    assert circuit.effect_size.tolist() == pytest.approx([-4, 3])


def test_skipped_layers_are_left_out_of_the_ranking() -> None:
    circuit = attribute(HAND, top_k=2, skip_layers=1, universal_threshold=None)
    assert circuit.layers.tolist() == [1, 1] and circuit.neurons.tolist() == [2, 0]


def test_a_neuron_that_always_fires_is_universal_and_is_left_out_before_ranking() -> None:
    values = np.tile([[10.0, 1, 0, 0], [10, 0, 1, 0]], (4, 1))
    activations = activations_of(values[:4] * [3, 1, 1, 1], values[4:] * [1, 0.5, 1, 1])  # δ is largest for neuron 0
    assert universal_neurons(activations, fraction=0.25).tolist() == [0]
    circuit = attribute(activations, top_k=1, universal_fraction=0.25)
    assert circuit.neurons.tolist() == [1]
    assert attribute(activations, top_k=1, universal_threshold=None).neurons.tolist() == [0]


def test_the_threshold_counts_prompts_and_includes_its_own_share() -> None:
    values = np.zeros((10, 50))
    values[:, 3] = [9] * 8 + [0] * 2  # in 8 of 10 prompts the largest
    values[8:, 7] = 9
    activations = activations_of(values[:5], values[5:])
    assert universal_neurons(activations, threshold=0.8, fraction=0.02).tolist() == [3]
    assert universal_neurons(activations, threshold=0.81, fraction=0.02).tolist() == []


def test_a_universal_fraction_beyond_what_is_stored_is_computed() -> None:
    activations = random_activations()
    wide = universal_neurons(activations, threshold=0.5, fraction=0.5)
    ranks = np.argsort(np.argsort(-np.abs(activations.values.numpy()), axis=1), axis=1)
    assert wide.tolist() == np.flatnonzero((ranks < 40).mean(0) >= 0.5).tolist()


@pytest.mark.parametrize(("fraction", "size"), [(0.001, 1), (0.0125, 1), (0.05, 4), (1.0, 80)])
def test_the_size_is_the_rounded_share_of_all_neurons_and_at_least_one(fraction: float, size: int) -> None:
    circuit = attribute(random_activations(), fraction=fraction, universal_threshold=None)
    assert len(circuit) == size == circuit.settings.top_k
    assert circuit.settings.fraction == fraction


def test_leaving_universal_neurons_out_keeps_the_size() -> None:
    activations = random_activations()
    assert len(universal_neurons(activations, threshold=0.2, fraction=0.05)) > 0
    assert len(attribute(activations, fraction=0.1, universal_threshold=0.2, universal_fraction=0.05)) == 8


def test_layers_of_different_width_are_ranked_together() -> None:
    model = identity((2, 5, 3), layers=3)
    positive = np.zeros((2, 10))
    positive[:, [1, 6, 7]] = [3, 2, 1]
    circuit = attribute(activations_of(positive, np.zeros((2, 10)), model), top_k=3, universal_threshold=None)
    assert list(zip(circuit.layers, circuit.neurons, strict=True)) == [(0, 1), (1, 4), (2, 0)]


def test_more_neurons_than_there_are_is_told() -> None:
    with pytest.raises(CircuitError, match="only 6 are left"):
        attribute(HAND, top_k=7, universal_threshold=None)
    with pytest.raises(CircuitError, match="only 3 are left"):
        attribute(HAND, top_k=4, skip_layers=1, universal_threshold=None)
    with pytest.raises(CircuitError, match="has 2 layers"):
        attribute(HAND, skip_layers=2)
    with pytest.raises(CircuitError, match="Give the circuit's size"):
        attribute(HAND, fraction=None)


@pytest.mark.parametrize(
    "wrong", [{"fraction": 0}, {"fraction": 1.5}, {"top_k": 0}, {"score": "luck"}, {"skip_layers": -1}]
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(CircuitError, match=next(iter(wrong))):
        attribute(HAND, **wrong)


def test_bfloat16_activations_select_as_their_float32_values_do() -> None:
    activations = random_activations(dtype=torch.bfloat16)
    values = activations.values.float().numpy()
    exact = activations_of(values[:6], values[6:], activations.model)
    assert attribute(activations, top_k=9).flat.tolist() == attribute(exact, top_k=9).flat.tolist()


magnitudes = arrays.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([0, 0.5, 1, 2, 3, 7]))


@given(magnitudes, st.data())
def test_top_neurons_are_what_a_stable_sort_gives(magnitude: np.ndarray, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(magnitude)))
    assert top_neurons(magnitude, size).tolist() == np.argsort(-magnitude, kind="stable")[:size].tolist()


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(["delta", "effect-size"]), st.integers(1, 30), st.integers(1, 20))
def test_a_larger_circuit_contains_the_smaller_in_the_same_order(seed: int, score: str, small: int, more: int) -> None:
    activations = random_activations(prompts=6, seed=seed)
    smaller = attribute(activations, top_k=small, score=score)  # type: ignore[arg-type]
    larger = attribute(activations, top_k=small + more, score=score)  # type: ignore[arg-type]
    assert larger.flat[:small].tolist() == smaller.flat.tolist()


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_swapping_the_sets_turns_the_sign_and_keeps_the_circuit(seed: int) -> None:
    activations = random_activations(prompts=8, seed=seed)
    values = activations.values.numpy()
    swapped = activations_of(values[4:], values[:4], activations.model)
    mine, theirs = attribute(activations, top_k=10), attribute(swapped, top_k=10)
    np.testing.assert_array_equal(mine.flat, theirs.flat)
    np.testing.assert_array_equal(mine.delta, -theirs.delta)


def test_dropping_a_prompt_selects_as_if_it_had_never_been_there() -> None:
    activations = random_activations()
    values = activations.values.numpy()
    never = activations_of(values[[0, 2, 3, 4, 5]], values[6:], activations.model)
    dropped = activations.without([1])
    np.testing.assert_array_equal(attribute(dropped, top_k=12).flat, attribute(never, top_k=12).flat)
    np.testing.assert_allclose(dropped.delta, never.delta, rtol=1e-6, atol=1e-6)


def test_a_circuit_without_figures_is_measured_and_one_with_figures_is_left_as_it_is() -> None:
    activations = random_activations()
    text = '{"neurons": {"2,-1,5": 1.5, "3,-1,4": -0.7}}'
    opened = Circuit.from_json(text, activations.model)
    shown = with_statistics(opened, activations)
    assert shown.flat.tolist() == opened.flat.tolist() and shown.prompts == opened.prompts
    np.testing.assert_array_equal(shown.delta, activations.delta[opened.flat])
    np.testing.assert_array_equal(shown.effect_size, activations.effect_size[opened.flat])
    own = attribute(activations, top_k=3)
    assert with_statistics(own, activations) is own
    with pytest.raises(CircuitError, match="belongs to"):
        with_statistics(circuit_of([(0, 0)]), activations)

"""The controls: nulls, stability, random circuits, activation scale, classification by one neuron."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cna_core.circuits import controls
from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.controls import (
    Interval,
    activation_scale,
    auc,
    mass_per_layer,
    permutation_null,
    random_circuit,
    stability,
)
from cna_core.errors import CircuitError, StoppedError
from tests.circuits.samples import activations_of, circuit_of, identity, random_activations

UNEVEN = identity((10, 30, 20), layers=3)


def relabelled(activations: Activations, positive: np.ndarray) -> Activations:
    """Activations of the same prompts with other labels."""
    values = activations.values.float().numpy()
    return activations_of(values[positive], values[~positive], activations.model)


# Random circuits


@given(st.integers(0, 1000), st.integers(1, 12))
def test_a_random_circuit_has_as_many_neurons_per_layer_and_none_in_common(seed: int, size: int) -> None:
    circuit = attribute(random_activations(seed=seed), top_k=size)
    random = random_circuit(circuit, seed=seed)
    np.testing.assert_array_equal(random.layers, circuit.layers)
    assert len(set(random.flat.tolist())) == size
    assert not set(random.flat.tolist()) & set(circuit.flat.tolist())
    assert random.overlap(random_circuit(circuit, seed=seed)) == 1.0


def test_another_seed_draws_other_neurons() -> None:
    circuit = attribute(random_activations(), top_k=20)
    assert random_circuit(circuit, seed=1).overlap(random_circuit(circuit, seed=2)) < 1


def test_a_random_circuit_has_its_own_figures_where_activations_are_given() -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=5)
    assert np.isnan(random_circuit(circuit).delta).all()
    random = random_circuit(circuit, activations=activations)
    np.testing.assert_array_equal(random.delta, activations.delta[random.flat])


def test_a_layer_too_full_for_a_random_control_is_told() -> None:
    with pytest.raises(CircuitError, match="Layer 1 has 2 neurons outside"):
        random_circuit(circuit_of([(1, neuron) for neuron in range(4)]))


# Shuffled labels


@pytest.mark.parametrize("score", ["delta", "effect-size"])
@pytest.mark.parametrize("model", [identity(20, layers=4), UNEVEN])
def test_every_shuffled_circuit_is_what_attribution_selects_with_those_labels(score: str, model: object) -> None:
    activations = random_activations(model=model)  # type: ignore[arg-type]
    rules = {"top_k": 12, "score": score, "skip_layers": 1, "universal_threshold": 0.5, "universal_fraction": 0.05}
    circuit = attribute(activations, **rules)  # type: ignore[arg-type]
    null = permutation_null(activations, circuit, resamples=20, seed=3)
    smallest = np.abs(circuit.delta if score == "delta" else circuit.effect_size).min()
    generator = np.random.default_rng(3)
    labels = generator.permuted(np.tile(activations.is_positive, (20, 1)), axis=1)
    for row, positive in enumerate(labels):
        shuffled = relabelled(activations, positive)
        expected = attribute(shuffled, **rules)  # type: ignore[arg-type]
        assert null.layer_counts[row].tolist() == expected.layer_counts.tolist()
        every = attribute(shuffled, **(rules | {"top_k": 30}))  # type: ignore[arg-type]
        reached = np.abs(every.delta if score == "delta" else every.effect_size) >= smallest
        assert null.chance_neurons[row] == reached.sum()
        mass = null.layer_mass[row] / null.layer_mass[row].sum()
        np.testing.assert_allclose(mass, mass_per_layer(shuffled), rtol=1e-4)


def test_the_null_is_the_same_in_small_parts_and_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=10)
    whole = permutation_null(activations, circuit, resamples=9, seed=1)
    halves = stability(activations, circuit, resamples=9, seed=1)
    monkeypatch.setattr(controls, "_VALUES_AT_ONCE", 100)
    np.testing.assert_array_equal(
        permutation_null(activations, circuit, resamples=9, seed=1).layer_counts, whole.layer_counts
    )
    again = stability(activations, circuit, resamples=9, seed=1)
    np.testing.assert_array_equal(again.jaccards, halves.jaccards)
    np.testing.assert_array_equal(again.selection_frequency, halves.selection_frequency)


def test_loud_late_layers_make_shuffled_circuits_late_too() -> None:
    activations = random_activations(model=identity(50, layers=10))
    null = permutation_null(activations, attribute(activations, top_k=20), resamples=50)
    late = null.concentration(0.10)
    assert late.low <= late.mean <= late.high
    assert late.mean > 0.25  # a tenth of the layers, but the loudest
    assert null.concentration(10) == Interval(1.0, 1.0, 1.0)


def test_neurons_that_truly_differ_are_hardly_ever_reached_by_chance() -> None:
    values = np.random.default_rng(0).normal(size=(40, 100))
    values[:20, :5] += 10
    activations = activations_of(values[:20], values[20:])
    null = permutation_null(activations, attribute(activations, top_k=5), resamples=50)
    assert null.chance().mean < 0.5


def test_bands_hold_the_mean_between_low_and_high() -> None:
    activations = random_activations()
    null = permutation_null(activations, attribute(activations, top_k=10), resamples=30)
    for low, mean, high in (null.layer_band(), null.mass_band(), null.mass_band(activation_scale(activations))):
        assert low.shape == mean.shape == high.shape == (4,)
        assert (low <= mean).all() and (mean <= high).all()
    assert null.layer_band()[1].sum() == pytest.approx(10)
    assert null.mass_band()[1].sum() == pytest.approx(1)


# Stability


def test_neurons_that_differ_in_every_prompt_are_selected_from_every_half() -> None:
    values = np.random.default_rng(0).normal(size=(40, 100))
    values[:20, :5] += 50
    activations = activations_of(values[:20], values[20:])
    result = stability(activations, attribute(activations, top_k=5), resamples=10)
    assert result.selection_frequency.tolist() == [1.0] * 5
    assert result.jaccard == Interval(1.0, 1.0, 1.0)


def test_noise_is_not_stable() -> None:
    values = np.random.default_rng(0).normal(size=(40, 400))
    activations = activations_of(values[:20], values[20:])
    assert stability(activations, attribute(activations, top_k=10), resamples=20).jaccard.mean < 0.3


@pytest.mark.parametrize("score", ["delta", "effect-size"])
def test_half_circuits_are_what_attribution_selects_from_the_halves(score: str) -> None:
    activations = random_activations(prompts=14, model=UNEVEN)
    rules = {"top_k": 8, "score": score, "universal_threshold": None}
    circuit = attribute(activations, **rules)  # type: ignore[arg-type]
    result = stability(activations, circuit, resamples=6, seed=5)
    first = controls.random_halves(activations.is_positive, 6, np.random.default_rng(5))
    assert first.sum(1).tolist() == [6] * 6  # 3 of 7 positive and 3 of 7 negative prompts
    frequency = np.zeros(len(circuit))
    for row, half in enumerate(first):
        pair = [
            attribute(activations.without(np.flatnonzero(~chosen).tolist()), **rules)  # type: ignore[arg-type]
            for chosen in (half, ~half)
        ]
        assert result.jaccards[row] == pytest.approx(pair[0].overlap(pair[1]))
        for one in pair:
            frequency += np.isin(circuit.flat, one.flat)
    np.testing.assert_allclose(result.selection_frequency, frequency / 12)


def test_too_few_prompts_to_split_is_told() -> None:
    activations = activations_of(np.ones((1, 4)), np.zeros((3, 4)))
    with pytest.raises(CircuitError, match="at least two"):
        stability(activations, attribute(activations, top_k=1))


def test_controls_refuse_another_models_circuit_and_can_be_stopped() -> None:
    activations = random_activations()
    with pytest.raises(CircuitError, match="belongs to"):
        permutation_null(activations, circuit_of([(0, 0)]))
    with pytest.raises(CircuitError, match="belongs to"):
        stability(activations, circuit_of([(0, 0)]))
    stop = threading.Event()
    stop.set()
    circuit = attribute(activations)
    with pytest.raises(StoppedError):
        permutation_null(activations, circuit, stop=stop)
    with pytest.raises(StoppedError):
        stability(activations, circuit, stop=stop)


def test_progress_ends_at_the_number_of_resamples() -> None:
    seen: list[tuple[int, int]] = []
    activations = random_activations()
    permutation_null(
        activations, attribute(activations), resamples=7, progress=lambda told: seen.append((told.done, told.total))
    )
    assert seen[-1] == (7, 7)


# Activation scale


def test_mass_per_layer_is_the_share_of_absolute_delta() -> None:
    positive = np.array([[1.0, -1, 6, 0]])
    activations = activations_of(positive, np.zeros((1, 4)), identity(2, layers=2))
    assert mass_per_layer(activations).tolist() == [0.25, 0.75]


def test_normalised_mass_does_not_change_when_a_layer_is_made_louder() -> None:
    quiet = random_activations()
    loud = quiet.values.clone()
    loud[:, 60:] *= 100
    louder = activations_of(loud[:6].numpy(), loud[6:].numpy(), quiet.model)
    normalised = mass_per_layer(louder, normalised=True)
    np.testing.assert_allclose(normalised, mass_per_layer(quiet, normalised=True), rtol=1e-5)
    assert mass_per_layer(louder)[3] > 0.9 > mass_per_layer(quiet)[3]


def test_a_silent_layer_has_no_mass_and_no_division_by_zero() -> None:
    activations = activations_of(np.array([[0.0, 0, 1, 1]]), np.array([[0.0, 0, 0, 0]]), identity(2, layers=2))
    assert mass_per_layer(activations, normalised=True).tolist() == [0, 1]


# Classification


def test_auc_counts_pairs_and_ties_by_half() -> None:
    positive = np.array([[3.0, 1, 0, 1], [4, 2, 0, 3]])
    negative = np.array([[1.0, 5, 0, 2], [2, 6, 0, 3]])
    # neuron 3: pairs (1,2) lost, (1,3) lost, (3,2) won, (3,3) tied
    assert auc(activations_of(positive, negative), np.arange(4)).tolist() == [1.0, 0.0, 0.5, 1.5 / 4]


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_auc_is_mirrored_when_the_sets_are_swapped(seed: int) -> None:
    activations = random_activations(prompts=8, seed=seed, dtype=torch.bfloat16)
    swapped = relabelled(activations, ~activations.is_positive)
    np.testing.assert_allclose(auc(activations, np.arange(80)), 1 - auc(swapped, np.arange(80)), atol=1e-12)

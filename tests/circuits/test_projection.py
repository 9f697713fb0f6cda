"""Prompt space: a true projection with an honest figure beside it."""

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.projection import held_out_auc, project_prompts
from cna_core.errors import CircuitError
from tests.circuits.samples import activations_of, circuit_of, random_activations


def test_sets_that_differ_along_a_line_are_told_apart_by_the_first_component() -> None:
    values = np.random.default_rng(0).normal(size=(20, 6)) * 0.1
    values[:10, :2] += 5
    activations = activations_of(values[:10], values[10:])
    projection = project_prompts(activations, attribute(activations, top_k=3, universal_threshold=None))
    assert projection.auc == 1.0
    assert projection.points[:10, 0].min() > projection.points[10:, 0].max()
    assert projection.explained[0] > 0.95


def test_distances_along_the_components_are_those_of_the_activations() -> None:
    activations = random_activations()
    circuit = circuit_of([(0, 1), (3, 4)], activations.model)
    points = project_prompts(activations, circuit).points
    values = activations.values.numpy()[:, circuit.flat]
    np.testing.assert_allclose(np.linalg.norm(points[0] - points[7]), np.linalg.norm(values[0] - values[7]), rtol=1e-5)
    assert project_prompts(activations, circuit).explained.sum() == pytest.approx(1)


def test_noise_is_not_separated() -> None:
    values = np.random.default_rng(0).normal(size=(200, 5))
    activations = activations_of(values[:100], values[100:])
    assert 0.35 < project_prompts(activations, attribute(activations, top_k=3, universal_threshold=None)).auc < 0.7


def test_a_single_neuron_and_identical_prompts_are_drawn_on_a_line_and_in_a_point() -> None:
    activations = random_activations()
    projection = project_prompts(activations, attribute(activations, top_k=1))
    assert (projection.points[:, 1] == 0).all() and projection.explained.tolist() == [1, 0]
    same = activations_of(np.ones((3, 4)), np.ones((3, 4)))
    projection = project_prompts(same, attribute(same, top_k=2, universal_threshold=None))
    assert not projection.points.any() and projection.auc == 0.5


def test_another_models_circuit_and_too_few_prompts_are_told() -> None:
    with pytest.raises(CircuitError, match="belongs to"):
        project_prompts(random_activations(), circuit_of([(0, 0)]))
    few = activations_of(np.ones((1, 4)), np.zeros((1, 4)))
    with pytest.raises(CircuitError, match="three prompts"):
        project_prompts(few, attribute(few, top_k=1))


def test_held_out_prompts_show_what_generalises_and_what_does_not() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(40, 400))
    activations = activations_of(noise[:20], noise[20:])
    circuit = attribute(activations, top_k=4, universal_threshold=None)
    by_chance = held_out_auc(activations, circuit)
    assert by_chance is not None and 0.35 < by_chance.mean < 0.65
    assert project_prompts(activations, circuit).auc > by_chance.high  # chosen with the labels it is judged by
    noise[:20, :3] += 4
    activations = activations_of(noise[:20], noise[20:])
    real = held_out_auc(activations, attribute(activations, top_k=3, universal_threshold=None))
    assert real is not None and real.low > 0.95


def test_too_few_prompts_hold_none_out() -> None:
    few = activations_of(np.eye(4)[:2], np.eye(4)[2:])
    assert held_out_auc(few, attribute(few, top_k=1, universal_threshold=None)) is None

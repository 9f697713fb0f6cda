"""The views in space place computed values, and nothing else."""

import numpy as np
import plotly.graph_objects as go

from cna_core.circuits.attribution import attribute
from cna_core.circuits.controls import Interval
from cna_core.circuits.projection import project_prompts
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.space import neuron_space, prompt_space
from tests.circuits.samples import random_activations

ACTIVATIONS = random_activations()
STATISTICS = NeuronStatistics.of(ACTIVATIONS)
CIRCUIT = attribute(ACTIVATIONS, top_k=6)


def trace(figure: go.Figure, meta: str) -> go.Figure:
    (found,) = [one for one in figure.data if one.meta == meta]
    return found


def test_circuit_neurons_stand_at_their_layer_index_and_delta() -> None:
    points = trace(neuron_space(STATISTICS, CIRCUIT), "circuit")
    assert points.y.tolist() == CIRCUIT.layers.tolist() and points.x.tolist() == CIRCUIT.neurons.tolist()
    np.testing.assert_array_equal(points.z, CIRCUIT.delta)
    assert points.customdata.tolist() == [list(pair) for pair in zip(CIRCUIT.layers, CIRCUIT.neurons, strict=True)]


def test_the_strongest_neurons_surround_the_circuit_and_none_is_drawn_twice() -> None:
    figure = neuron_space(STATISTICS, CIRCUIT, strongest=20)
    others = trace(figure, "strongest")
    mine = set(map(tuple, trace(figure, "circuit").customdata.tolist()))
    assert not mine & set(map(tuple, others.customdata.tolist()))
    assert len(others.x) + len(mine) >= 20
    drawn = np.sort(np.abs(np.concatenate([others.z, CIRCUIT.delta])))[::-1][:20]
    np.testing.assert_array_equal(drawn, np.sort(np.abs(STATISTICS.delta))[::-1][:20])


def test_without_a_circuit_only_the_strongest_are_drawn() -> None:
    figure = neuron_space(STATISTICS, strongest=5)
    assert [one.meta for one in figure.data] == ["strongest", "final"]
    assert len(figure.data[0].x) == 5


def test_prompts_stand_where_the_projection_puts_them_and_the_auc_is_said() -> None:
    projection = project_prompts(ACTIVATIONS, CIRCUIT)
    figure = prompt_space(projection, ACTIVATIONS.is_positive, ACTIVATIONS.prompts)
    np.testing.assert_array_equal(trace(figure, "positive").x, projection.points[:6, 0])
    np.testing.assert_array_equal(trace(figure, "negative").y, projection.points[6:, 1])
    assert f"AUC {projection.auc:.2f}" in figure.layout.title.text and "held out" not in figure.layout.title.text
    figure = prompt_space(projection, ACTIVATIONS.is_positive, ACTIVATIONS.prompts, held_out=Interval(0.7, 0.55, 0.8))
    assert "(held out 0.70, 0.55–0.80)" in figure.layout.title.text
    assert f"{100 * projection.explained[0]:.0f} %" in figure.layout.xaxis.title.text

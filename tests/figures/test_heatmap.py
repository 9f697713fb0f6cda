"""The map shows what was computed: every peak, every mark in its place, the final layers framed."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.figures import palette
from cna_core.figures.heatmap import blank_map, neuron_heatmap, robust_limit
from cna_core.figures.neuron_cells import NeuronStatistics, pool
from cna_core.models.layout import NeuronLayout
from tests.circuits.samples import circuit_of, identity, random_activations

ACTIVATIONS = random_activations(model=identity((20, 30, 10, 20), layers=4))
STATISTICS = NeuronStatistics.of(ACTIVATIONS)
CIRCUIT = attribute(ACTIVATIONS, top_k=7)


def trace(figure: go.Figure, meta: str) -> go.Figure:
    (found,) = [one for one in figure.data if one.meta == meta]
    return found


# Pooling


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    columns=st.integers(1, 50),
    order=st.sampled_from(["index", "value"]),
    seed=st.integers(0, 1000),
)
def test_pooling_keeps_every_layers_peak_with_its_sign_and_its_neuron(
    widths: list[int], columns: int, order: str, seed: int
) -> None:
    layout = NeuronLayout(tuple(widths))
    values = np.random.default_rng(seed).normal(size=layout.total).astype(np.float32)
    cells = pool(values, layout, order=order, largest_columns=columns)  # type: ignore[arg-type]
    assert cells.values.shape[1] <= columns
    for layer, part in enumerate(layout.split(values)):
        row, neurons = cells.values[layer], cells.neurons[layer]
        there = neurons >= 0
        np.testing.assert_array_equal(row[there], part[neurons[there]])
        assert np.isnan(row[~there]).all()
        assert np.abs(part).argmax() in neurons
        in_order = part if order == "index" else np.sort(part)[::-1]
        for column in np.flatnonzero(there):
            start = column * cells.bin_width
            assert np.abs(row[column]) == np.abs(in_order[start : start + cells.bin_width]).max()


def test_a_range_of_few_neurons_is_shown_one_to_a_cell() -> None:
    layout = NeuronLayout((5000, 5000))
    values = np.arange(10_000, dtype=np.float32)
    assert pool(values, layout).bin_width == 5
    cells = pool(values, layout, layers=(1, 1), neurons=(1000, 1099))
    assert cells.bin_width == 1
    assert cells.values.tolist() == [list(range(6000, 6100))]
    assert cells.neurons[0, 0] == 1000 and cells.centres[0] == 1000


def test_ranges_beyond_the_model_are_cut_to_it() -> None:
    cells = pool(np.arange(6, dtype=np.float32), NeuronLayout((3, 3)), layers=(1, 9), neurons=(-4, 99))
    assert cells.values.tolist() == [[3, 4, 5]]
    assert pool(np.arange(6, dtype=np.float32), NeuronLayout((3, 3)), neurons=(8, 9)).values.tolist() == [[2], [5]]


def test_every_neurons_place_is_known_in_either_order() -> None:
    values = np.array([1, 3, 2, -5, 4], dtype=np.float32)
    cells = pool(values, NeuronLayout((3, 2)), order="value")
    assert cells.positions.tolist() == [[2, 0, 1], [1, 0, 2]]
    assert cells.values[0].tolist() == [3, 2, 1]
    assert pool(values, NeuronLayout((3, 2))).positions[0].tolist() == [0, 1, 2]


def test_colours_end_where_hardly_any_cell_is_beyond() -> None:
    values = np.concatenate([np.linspace(-1, 1, 999), [1000.0, np.nan]])
    assert robust_limit(values) == pytest.approx(1, abs=0.02)
    assert robust_limit(np.zeros(5)) == 1
    assert robust_limit(np.array([np.nan])) == 1
    assert robust_limit(np.array([0.0] * 999 + [3.0])) == 3


# The figure


@pytest.mark.parametrize(
    ("quantity", "values"),
    [("delta", STATISTICS.delta), ("magnitude", np.abs(STATISTICS.delta)), ("effect-size", STATISTICS.effect_size)],
)
def test_the_cells_are_the_statistics(quantity: str, values: np.ndarray) -> None:
    cells = trace(neuron_heatmap(STATISTICS, quantity=quantity), "cells")  # type: ignore[arg-type]
    for layer, part in enumerate(STATISTICS.layout.split(values)):
        np.testing.assert_array_equal(cells.z[layer][: len(part)], part)
        assert np.isnan(cells.z[layer][len(part) :]).all()


def test_hover_names_the_neuron_and_its_figures() -> None:
    cells = trace(neuron_heatmap(STATISTICS), "cells")
    flat = STATISTICS.layout.flat(np.array([1]), np.array([25]))[0]
    expected = [1, 25, *(part[flat] for part in (STATISTICS.delta, STATISTICS.positive_mean, STATISTICS.negative_mean))]
    np.testing.assert_allclose(cells.customdata[1, 25][:5], expected)
    assert cells.customdata[1, 25][5] == STATISTICS.effect_size[flat]


@pytest.mark.parametrize("order", ["index", "value"])
def test_marks_lie_on_their_neurons_and_say_which_they_are(order: str) -> None:
    universal = np.array([3, 41])
    frequency = np.linspace(0, 1, len(CIRCUIT))
    figure = neuron_heatmap(
        STATISTICS, circuit=CIRCUIT, universal=universal, selection_frequency=frequency, order=order
    )  # type: ignore[arg-type]
    marks, cells = trace(figure, "circuit"), trace(figure, "cells")
    assert marks.customdata[:, 0].tolist() == CIRCUIT.layers.tolist()
    assert marks.customdata[:, 1].tolist() == CIRCUIT.neurons.tolist()
    assert marks.customdata[:, 6].tolist() == list(range(1, 8))
    np.testing.assert_allclose(marks.customdata[:, 7], frequency)
    for x, y, delta in zip(marks.x, marks.y, CIRCUIT.delta, strict=True):
        assert cells.z[y][round(float(x))] == delta
    assert trace(figure, "universal").customdata[:, :2].tolist() == [[0, 3], [1, 21]]


def test_marks_outside_the_shown_part_are_not_drawn() -> None:
    figure = neuron_heatmap(STATISTICS, circuit=CIRCUIT, layers=(1, 2), neurons=(5, 9))
    marks = trace(figure, "circuit")
    inside = (CIRCUIT.layers >= 1) & (CIRCUIT.layers <= 2) & (CIRCUIT.neurons >= 5) & (CIRCUIT.neurons <= 9)
    assert marks.customdata[:, 1].tolist() == CIRCUIT.neurons[inside].tolist()
    assert (marks.customdata[:, 6] - 1).tolist() == np.flatnonzero(inside).tolist()


def test_the_scale_is_symmetric_and_zero_is_the_background() -> None:
    cells = trace(neuron_heatmap(STATISTICS), "cells")
    assert cells.zmin == -cells.zmax
    assert cells.colorscale[3] == (0.5, palette.background())
    magnitude = trace(neuron_heatmap(STATISTICS, quantity="magnitude", dark=True), "cells")
    assert magnitude.zmin == 0 and magnitude.colorscale[0] == (0, palette.background(dark=True))
    assert trace(neuron_heatmap(STATISTICS, colour_limit=0.25), "cells").zmax == 0.25


def test_the_colour_bar_says_where_colours_end() -> None:
    cells = trace(neuron_heatmap(STATISTICS), "cells")
    assert cells.colorbar.tickvals == (-cells.zmax, 0, cells.zmax)
    assert cells.colorbar.ticktext == (f"≤ −{cells.zmax:.2g}", "0", f"≥ {cells.zmax:.2g}")
    assert cells.colorbar.title.text == "δ"


def test_the_final_layers_are_framed_and_named() -> None:
    figure = neuron_heatmap(STATISTICS)
    (frame,) = figure.layout.shapes
    assert (frame.y0, frame.y1) == (2.5, 3.5) and frame.line.color == palette.FINAL_FRAME
    assert figure.layout.annotations[0].text == "final 10 % of layers"
    assert neuron_heatmap(STATISTICS, layers=(0, 1)).layout.shapes == ()


def test_layer_zero_is_at_the_bottom() -> None:
    figure = neuron_heatmap(STATISTICS)
    assert figure.layout.yaxis.range == (-0.5, 3.5)


def test_nothing_jumps_while_prompts_go_through() -> None:
    partial = NeuronStatistics(STATISTICS.layout, STATISTICS.delta * 0.5)
    one, other = neuron_heatmap(partial), neuron_heatmap(STATISTICS, circuit=CIRCUIT)
    for part in ("height", "margin"):
        assert one.layout[part] == other.layout[part]
    for axis in ("xaxis", "yaxis"):
        assert one.layout[axis].range == other.layout[axis].range
    assert trace(one, "cells").customdata.shape[-1] == 3  # layer, neuron, δ: nothing else is known yet


def test_every_cell_can_be_clicked_and_marks_are_not_covered() -> None:
    figure = neuron_heatmap(STATISTICS, circuit=CIRCUIT, clickable_cells=True)
    grid, marks = trace(figure, "grid"), trace(figure, "circuit")
    places = {tuple(pair) for pair in grid.customdata[:, :2].astype(int).tolist()}
    marked = {tuple(pair) for pair in marks.customdata[:, :2].astype(int).tolist()}
    assert not places & marked
    assert len(places | marked) == STATISTICS.layout.total
    assert trace(figure, "cells").hoverinfo == "skip"


def test_the_picked_neuron_is_ringed() -> None:
    ring = trace(neuron_heatmap(STATISTICS, picked=(1, 7)), "picked")
    assert (ring.x.tolist(), ring.y.tolist()) == ([7], [1])
    assert len(trace(neuron_heatmap(STATISTICS, picked=(1, 7), layers=(2, 3)), "picked").x) == 0


def test_arrays_travel_as_binary_and_a_70b_map_stays_under_four_megabytes() -> None:
    layout = NeuronLayout((29568,) * 80)
    values = np.random.default_rng(0).standard_normal(layout.total, dtype=np.float32)
    figure = neuron_heatmap(NeuronStatistics(layout, values, values, values, values), clickable_cells=True)
    text = figure.to_json()
    assert len(text) < 4_000_000
    assert "bdata" in json.loads(text)["data"][0]["z"]


def test_the_blank_map_has_the_axes_of_the_map_that_follows() -> None:
    blank, filled = blank_map(STATISTICS.layout, "Words"), neuron_heatmap(STATISTICS)
    for axis in ("xaxis", "yaxis"):
        assert blank.layout[axis].range == filled.layout[axis].range
    assert (blank.layout.height, blank.layout.margin) == (filled.layout.height, filled.layout.margin)
    assert blank.layout.shapes == filled.layout.shapes
    assert len(blank.to_json()) < 10_000


def crowded(count: int) -> tuple[NeuronStatistics, Circuit]:
    """A model of two layers, and a circuit with one neuron in the first and `count` in the second."""
    layout = NeuronLayout((3000, 3000))
    values = np.random.default_rng(0).normal(size=layout.total).astype(np.float32)
    places = [(0, 7), *((1, 10 * number) for number in range(count))]
    return NeuronStatistics(layout, values), circuit_of(places, identity((3000, 3000), layers=2))


def test_a_layer_whose_dots_would_cover_each_other_shows_their_density() -> None:
    statistics, circuit = crowded(150)
    figure = neuron_heatmap(statistics, circuit=circuit, clickable_cells=True)
    dots, density = trace(figure, "circuit"), trace(figure, "density")
    assert dots.customdata[:, :2].tolist() == [[0, 7]]
    assert set(density.customdata[:, 0]) == {1} and density.customdata[:, 1].sum() == 150
    assert (density.base + density.y).max() < 1.5 and density.base.min() > 0.5  # within the layer's row
    assert (trace(figure, "grid").y == 1).sum() == 750  # cells in the dense layer can be clicked


@pytest.mark.parametrize("zoom", [None, (0, 99)])
def test_dots_that_fit_stay_dots(zoom: tuple[int, int] | None) -> None:
    statistics, circuit = crowded(40 if zoom is None else 150)
    figure = neuron_heatmap(statistics, circuit=circuit, neurons=zoom)
    assert "density" not in [one.meta for one in figure.data]
    assert len(trace(figure, "circuit").x) == (41 if zoom is None else 11)


def test_the_strongest_so_far_are_marked_while_prompts_are_recorded() -> None:
    partial = NeuronStatistics(STATISTICS.layout, STATISTICS.delta)
    marks = trace(neuron_heatmap(partial, leading=np.array([3, 41])), "leading")
    assert marks.customdata[:, :2].tolist() == [[0, 3], [1, 21]]


def test_effects_are_drawn_with_what_pushes_towards_refusal_above_zero() -> None:
    effect = np.linspace(-2, 1, ACTIVATIONS.model.layout.total, dtype=np.float32)
    effect[-20:] = np.nan  # the last layer was not measured
    figure = neuron_heatmap(NeuronStatistics.of(ACTIVATIONS, effect), quantity="effect")
    cells = np.asarray(trace(figure, "cells").z)
    np.testing.assert_array_equal(cells[0, :20], -effect[:20])
    assert np.isnan(cells[3]).all()

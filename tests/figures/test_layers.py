"""The layer charts draw the arrays they are given, level with the map."""

import numpy as np
import plotly.graph_objects as go
import pytest

from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.layers import layer_profile
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.models.layout import NeuronLayout

COUNTS = np.array([0, 1, 5, 10])
BAND = (np.array([0.0, 0, 1, 6]), np.array([0.5, 1, 3, 9]), np.array([1.0, 2, 5, 13]))
EFFECT = tuple(np.array([np.nan, -0.1, 0.0, 0.2]) + shift for shift in (-0.05, 0, 0.1))
RANDOM_EFFECT = tuple(np.array([np.nan, 0.01, 0.02, np.nan]) + shift for shift in (-0.02, 0, 0.02))
MASS = np.array([0.1, 0.2, 0.3, 0.4])


def trace(figure: go.Figure, meta: str) -> go.Figure:
    (found,) = [one for one in figure.data if one.meta == meta]
    return found


def full(dark: bool = False) -> go.Figure:
    return layer_profile(
        COUNTS,
        null_counts=BAND,
        mass=MASS,
        mass_normalised=MASS[::-1],
        null_mass=BAND,
        causal_effect=EFFECT,
        null_effect=RANDOM_EFFECT,
        dark=dark,
    )


def test_bars_are_the_counts_and_the_band_spans_low_to_high_behind_them() -> None:
    figure = full()
    assert trace(figure, "counts").x.tolist() == COUNTS.tolist()
    band = trace(figure, "null-counts")
    np.testing.assert_array_equal(band.base, BAND[0])
    np.testing.assert_array_equal(band.base + band.x, BAND[2])
    metas = [one.meta for one in figure.data]
    assert metas.index("null-counts") < metas.index("counts") < metas.index("null-counts-ends")
    ends = trace(figure, "null-counts-ends")
    np.testing.assert_array_equal(ends.x, np.concatenate([BAND[0], BAND[2]]))
    np.testing.assert_array_equal(ends.y, [*range(len(COUNTS))] * 2)


def test_mass_is_drawn_raw_and_by_activation_scale() -> None:
    figure = full()
    assert trace(figure, "mass").x.tolist() == MASS.tolist()
    assert trace(figure, "mass-normalised").x.tolist() == MASS[::-1].tolist()


def test_layers_without_a_measured_effect_have_no_dot() -> None:
    dots = trace(full(), "causal-effect")
    assert dots.y.tolist() == [1, 2, 3] and dots.x.tolist() == [-0.1, 0.0, 0.2]
    np.testing.assert_allclose(dots.x - dots.error_x.arrayminus, EFFECT[0][1:])
    np.testing.assert_allclose(dots.x + dots.error_x.array, EFFECT[2][1:])


def test_random_neurons_are_a_band_beside_the_effect_where_some_were_drawn() -> None:
    band = trace(full(), "null-effect")
    assert band.y.tolist() == [1, 2]
    np.testing.assert_allclose(np.array(band.base, dtype=float), RANDOM_EFFECT[0][1:3])
    np.testing.assert_allclose(np.array(band.base + band.x, dtype=float), RANDOM_EFFECT[2][1:3])
    assert "random neurons" in band.hovertemplate and "shuffled" not in band.hovertemplate


def test_only_what_is_given_is_drawn() -> None:
    assert [one.meta for one in layer_profile(COUNTS).data] == ["counts"]
    assert [one.meta for one in layer_profile(COUNTS, mass=MASS).data] == ["counts", "mass"]


@pytest.mark.parametrize("layers", [None, (1, 2)])
def test_layers_are_level_with_the_rows_of_the_map(layers: tuple[int, int] | None) -> None:
    values = np.ones(12, dtype=np.float32)
    map_layout = neuron_heatmap(NeuronStatistics(NeuronLayout((3,) * 4), values), layers=layers).layout
    mine = layer_profile(COUNTS, mass=MASS, layers=layers).layout
    assert mine.height == map_layout.height
    assert (mine.margin.t, mine.margin.b) == (map_layout.margin.t, map_layout.margin.b)
    assert mine.yaxis.range == mine.yaxis2.range == map_layout.yaxis.range


def test_every_panel_frames_the_final_layers() -> None:
    frames = [shape for shape in full().layout.shapes if shape.type == "rect"]
    assert [(frame.y0, frame.y1) for frame in frames] == [(2.5, 3.5)] * 3

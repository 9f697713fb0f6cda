"""Claims about the token maps: shared axes, what can be clicked, and what is marked."""

import numpy as np

from cna_core.figures.token_map import LaneActivity, alternatives_chart, token_map

LAYERS = [1, 3]


def lane(name: str, count: int, scale: float = 1.0, **more: object) -> LaneActivity:
    values = scale * np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return LaneActivity(name, "#D55E00", [f"t{place}" for place in range(count)], values, **more)  # type: ignore[arg-type]


def of(figure, meta: str) -> list:
    return [trace for trace in figure.data if trace.meta == meta]


def test_maps_share_their_colours_and_one_token_axis() -> None:
    figure = token_map([lane("Baseline", 3), lane("Steered", 5, 4.0)], LAYERS, 4)
    first, second = of(figure, "map")
    assert (first.zmin, first.zmax) == (second.zmin, second.zmax) and first.zmax > 5
    assert first.xaxis == second.xaxis and {first.yaxis, second.yaxis} == {"y", "y2"}
    assert figure.layout.xaxis.range == (0.5, 5.5)
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range == (0.5, 3.5)


def test_layers_without_the_circuit_stay_empty() -> None:
    (drawn,) = of(token_map([lane("Baseline", 3)], LAYERS, 4), "map")
    assert np.isnan(drawn.z[[0, 2]]).all() and drawn.z[3].tolist() == [1, 3, 5]


def test_every_cell_can_be_clicked_and_says_its_lane_and_token() -> None:
    figure = token_map([lane("Baseline", 2), lane("Steered", 3)], LAYERS, 4)
    _, steered = of(figure, "tokens")
    assert steered.customdata[:, :2].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1], [1, 2], [1, 2]]
    assert steered.x.tolist() == [1, 1, 2, 2, 3, 3] and steered.y.tolist() == [1, 3] * 3


def test_divergence_has_a_line_only_where_it_was_measured() -> None:
    measured = lane("Steered", 3, divergence=np.array([0.0, 1.0, 0.5]), parted_at=1)
    unmeasured = lane("Steered", 3, divergence=np.full(3, np.nan))
    assert len(of(token_map([lane("Baseline", 3), measured], LAYERS, 4), "divergence")) == 1
    assert not of(token_map([lane("Baseline", 3), unmeasured], LAYERS, 4), "divergence")
    figure = token_map([lane("Baseline", 3), measured], LAYERS, 4, picked=(1, 2))
    assert figure.layout.shapes[0].x0 == 1.5 and of(figure, "picked")[0].x.min() == 2.5


def test_markup_in_a_token_is_shown_as_text() -> None:
    odd = LaneActivity("Baseline", "#0072B2", ["<b>\n"], np.zeros((1, 2)))
    (tokens,) = of(token_map([odd], LAYERS, 4), "tokens")
    assert tokens.text[0] == "&lt;b&gt;⏎"


def test_alternatives_are_drawn_for_all_three_readers_with_the_chosen_one_marked() -> None:
    thirds = np.array([0.5, 0.25]), np.array([0.1, 0.9]), np.array([0.3, 0.6])
    figure = alternatives_chart([" no", " can"], *thirds, chosen=1)
    for meta, values in zip(("baseline", "steered", "not-here"), thirds, strict=True):
        assert of(figure, meta)[0].x.tolist() == values.tolist()
    assert [("<b>" in name) for name in figure.layout.yaxis.ticktext] == [False, True]

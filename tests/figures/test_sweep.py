"""The sweep's charts draw the arrays they are given, and say what a run says."""

import itertools

import numpy as np
import plotly.graph_objects as go
import pytest

from cna_core.evaluation.measures.benign_kl import BenignDivergence
from cna_core.evaluation.measures.knowledge import Knowledge
from cna_core.evaluation.measures.perplexity import Perplexity
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.measures.registry import measure, usual_measures
from cna_core.evaluation.runs import Point
from cna_core.evaluation.setting import Treatment
from cna_core.figures import palette
from cna_core.figures.causal_profile import causal_profile
from cna_core.figures.dose_response import dose_response
from cna_core.figures.pareto import refusal_against_quality
from cna_core.figures.sweep_curves import Curve, PublishedMark, curves_of
from cna_core.figures.sweep_grid import grid_heatmap
from tests.evaluation.test_runs import a_run

STRENGTHS = np.array([-1.0, 0.0, 1.0, 2.0])
COSTS = [one for one in usual_measures(("benign", "borderline", "harmful", "knowledge")) if one.shown][1:]


def a_curve(label: str = "CNA", values: tuple[float, ...] = (0.9, 0.8, 0.4, 0.1), run: int | None = None) -> Curve:
    middle = np.array(values)
    treatment = {"CNA": Treatment("scale"), "CAA": Treatment("caa"), "twin": Treatment("random", "scale")}[label]
    return Curve(label, treatment, STRENGTHS, middle, middle - 0.05, middle + 0.05, run)


def trace(figure: go.Figure, meta: str) -> go.Figure:
    (found,) = [one for one in figure.data if one.meta == meta]
    return found


def test_a_curve_is_drawn_with_its_interval_as_a_band_in_its_colour() -> None:
    figure = dose_response([(RefusalRate, [a_curve()])])
    line, band = trace(figure, "refusal_rate/scale/0"), trace(figure, "refusal_rate/scale/0/band")
    np.testing.assert_array_equal(line.x, STRENGTHS)
    np.testing.assert_allclose(line.y, [0.9, 0.8, 0.4, 0.1])
    assert line.line.color == palette.STEERED
    np.testing.assert_allclose(band.y[:4], line.y + 0.05)
    np.testing.assert_allclose(band.y[4:], (line.y - 0.05)[::-1])


def test_costs_stand_below_over_the_same_strengths() -> None:
    curves = [a_curve("CNA"), a_curve("twin"), a_curve("CAA")]
    figure = dose_response([(RefusalRate, curves), *((cost, curves) for cost in COSTS)], prompts=64)
    assert len(figure.data) == 2 * 3 * (1 + len(COSTS))
    ranges = {tuple(figure.layout[name].range) for name in figure.layout if name.startswith("xaxis")}
    assert len(ranges) == 1
    colours = {figure.data[place].line.color for place in (1, 3, 5)}
    assert colours == {palette.STEERED, palette.RANDOM, palette.CAA}
    assert "refused, of 64 harmful prompts" in [note.text for note in figure.layout.annotations]


def test_ranges_stay_while_a_chart_fills() -> None:
    empty = dose_response([(RefusalRate, [])], strengths=(-1, 2))
    full = dose_response([(RefusalRate, [a_curve(values=(0.9, 0.8, 0.4, 0.1))])], strengths=(-1, 2))
    for axis in ("xaxis", "yaxis"):
        assert empty.layout[axis].range == full.layout[axis].range
    assert empty.layout.height == full.layout.height


@pytest.mark.parametrize("measured", [{}, {"perplexity"}, {"quality", "benign_kl"}, {cost.key for cost in COSTS}])
def test_only_what_was_measured_has_a_panel_and_its_title_stands_on_it(measured: set[str]) -> None:
    costs = [(cost, [a_curve()] if cost.key in measured else []) for cost in COSTS]
    figure = dose_response([(RefusalRate, [a_curve()]), *costs])
    shown = ["refused", *(cost.panel_title() for cost in COSTS if cost.key in measured)]
    axes = [figure.layout[name] for name in sorted(name for name in figure.layout if name.startswith("yaxis"))]
    assert len(axes) == len(shown)
    titles = {note.text: note for note in figure.layout.annotations if note.text in shown}
    assert list(titles) == shown
    assert [titles[title].y for title in shown] == pytest.approx([axis.domain[1] for axis in axes])
    drawn = {trace.yaxis for trace in figure.data}
    assert len(drawn) == len(shown)


def test_panels_keep_their_heights_and_titles_have_room() -> None:
    for count in (0, 1, 6):
        figure = dose_response([(RefusalRate, [a_curve()]), *((cost, [a_curve()]) for cost in COSTS[:count])])
        plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
        axes = [figure.layout[name] for name in sorted(name for name in figure.layout if name.startswith("yaxis"))]
        heights = [plot * (axis.domain[1] - axis.domain[0]) for axis in axes]
        assert heights == pytest.approx([300, *[78] * count])
        gaps = [plot * (above.domain[0] - below.domain[1]) for above, below in itertools.pairwise(axes)]
        assert gaps == pytest.approx([44] * count)


def test_labels_at_the_ends_do_not_overlap_also_with_every_method_and_its_twin() -> None:
    values = np.linspace(0.9, 0.5, 4)
    names = [
        f"curve of the {word}" for word in ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "last")
    ]
    curves = [
        Curve(name, Treatment(f"m{place}"), STRENGTHS, values, values, values) for place, name in enumerate(names)
    ]
    figure = dose_response([(RefusalRate, curves)])
    notes = [note for note in figure.layout.annotations if note.text.replace("<br>", " ") in names]
    assert len(notes) == 8
    axis, (low, high) = figure.layout.yaxis, figure.layout.yaxis.range
    pixels = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) * (
        axis.domain[1] - axis.domain[0]
    )
    heights = [(note.text.count("<br>") + 1) * 14 for note in sorted(notes, key=lambda note: note.y)]
    places = sorted((note.y - low) / (high - low) * pixels for note in notes)
    for lower, upper, above, below in zip(places, places[1:], heights[1:], heights, strict=False):
        assert upper - lower >= (above + below) / 2
    assert low < min(note.y for note in notes) and max(note.y for note in notes) < high


def test_a_label_that_had_to_move_is_led_to_its_curve() -> None:
    figure = dose_response([(RefusalRate, [a_curve("CNA"), a_curve("twin"), a_curve("CAA")])])
    leaders = [note for note in figure.layout.annotations if note.showarrow]
    assert leaders
    assert {(note.x, round(note.y, 6)) for note in leaders} == {(2.0, 0.1)}
    assert not [note for note in dose_response([(RefusalRate, [a_curve()])]).layout.annotations if note.showarrow]


def test_published_figures_are_hollow_marks() -> None:
    mark = PublishedMark(1.0, 0.34, "ablated")
    figure = dose_response([(RefusalRate, [a_curve()])], published=[mark])
    drawn = trace(figure, "published/scale")
    assert (drawn.x, drawn.y, drawn.marker.symbol) == ((1.0,), (0.34,), "circle-open")


def test_runs_of_a_comparison_differ_by_colour_and_mark_and_their_methods_by_dashes() -> None:
    names = ("CNA", "CAA", "twin")
    curves = [a_curve(name, run=run) for run in (0, 1) for name in names]
    figure = dose_response([(RefusalRate, curves)])
    first, second = trace(figure, "refusal_rate/scale/0"), trace(figure, "refusal_rate/scale/1")
    assert first.line.color != second.line.color
    assert first.marker.symbol != second.marker.symbol
    assert first.line.dash == second.line.dash != trace(figure, "refusal_rate/caa/0").line.dash
    twin = trace(figure, "refusal_rate/random-scale/0")
    assert (twin.line.color, twin.line.dash) == (first.line.color, first.line.dash)
    assert twin.line.width < first.line.width


def test_twins_are_grey_with_a_dash_that_says_whose_they_are() -> None:
    curves = [
        Curve(str(place), Treatment("random", owner), STRENGTHS, *(np.zeros(4),) * 3)
        for place, owner in enumerate(("scale", "caa"))
    ]
    figure = dose_response([(RefusalRate, curves)])
    first, second = trace(figure, "refusal_rate/random-scale/0"), trace(figure, "refusal_rate/random-caa/0")
    assert first.line.color == second.line.color == palette.RANDOM
    assert first.line.dash != second.line.dash


def test_a_method_that_is_not_registered_here_is_drawn_all_the_same() -> None:
    curve = Curve("from elsewhere", Treatment("from_elsewhere"), STRENGTHS, *(np.zeros(4),) * 3)
    assert trace(dose_response([(RefusalRate, [curve])]), "refusal_rate/from_elsewhere/0").line.color


def test_the_pareto_view_pairs_refusal_and_quality_of_the_same_strength() -> None:
    quality = Curve("CNA", Treatment("scale"), STRENGTHS[1:], *(np.array([1.0, 0.9, 0.7]),) * 3)
    figure = refusal_against_quality([(a_curve(), quality)], published=[PublishedMark(1, 0.2, "x", quality=0.97)])
    drawn = trace(figure, "pareto/scale/0")
    np.testing.assert_allclose(drawn.x, [1.0, 0.9, 0.7])
    np.testing.assert_allclose(drawn.y, [0.8, 0.4, 0.1])
    np.testing.assert_allclose(drawn.customdata, [0, 1, 2])
    assert trace(figure, "published/scale").x == (0.97,)


def test_the_grid_says_its_numbers_and_frames_the_working_point() -> None:
    values = np.array([[0.9, 0.5], [0.8, np.nan]])
    figure = grid_heatmap(np.array([0.0, 1.0]), np.array([0.001, 0.004]), values, chosen=(1.0, 0.001))
    drawn = trace(figure, "grid/refusal_rate")
    assert [list(line) for line in drawn.text] == [["90 %", "50 %"], ["80 %", ""]]
    assert list(drawn.y) == ["0.1 %", "0.4 %"]
    numbers = [(note.x, note.y, note.text) for note in figure.layout.annotations]
    assert numbers == [(0, 0, "90 %"), (1, 0, "50 %"), (0, 1, "80 %")]
    [frame] = figure.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (0.5, 1.5, -0.5, 0.5)
    assert frame.line.color == palette.FINAL_FRAME


@pytest.mark.parametrize("dark", [False, True])
def test_a_cells_number_is_easy_to_read_on_its_colour(dark: bool) -> None:
    values = np.linspace(0, 1, 21)[None]
    figure = grid_heatmap(np.arange(21.0), np.array([0.001]), values, dark=dark)
    scale = palette.sequential(dark)
    for value, note in zip(values[0], figure.layout.annotations, strict=True):
        lights = sorted(map(palette.luminance, (palette.colour_at(scale, value), note.font.color)))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) > 4.5


@pytest.mark.parametrize("values", [[[np.nan, np.nan]], [[0.0, 0.0]], [[0.3, 0.3]]])
def test_a_grid_of_nothing_or_of_one_value_is_drawn(values: list[list[float]]) -> None:
    for key in ("refusal_rate", "benign_kl", "perplexity", "knowledge"):
        figure = grid_heatmap(np.array([0.0, 1.0]), np.array([0.001]), np.array(values), measure(key))
        assert len(figure.layout.annotations) == np.isfinite(values).sum()


def test_a_perplexity_of_twenty_is_called_twenty() -> None:
    curve = a_curve(values=(3.0, 2.0, 4.0, 19.0))
    figure = dose_response([(RefusalRate, [a_curve()]), (Perplexity, [curve])])
    assert figure.layout.yaxis2.ticktext == ("2", "5", "10", "20")
    pareto = refusal_against_quality([(a_curve(), curve)], quality=Perplexity)
    assert {"10", "20"} <= set(pareto.layout.xaxis.ticktext)


def test_a_long_name_of_a_run_is_said_whole_beside_its_curve() -> None:
    name = "qwen2.5-coder-0.5b-instruct CNA"
    curves = [a_curve(), Curve(name, Treatment("scale"), STRENGTHS, *(np.array([0.9, 0.8, 0.4, 0.1]),) * 3, run=1)]
    notes = [note.text for note in dose_response([(RefusalRate, curves)]).layout.annotations]
    assert name in [note.replace("-<br>", "-").replace("<br>", " ") for note in notes]


def test_shares_and_changes_are_said_as_elsewhere_in_the_app() -> None:
    figure = dose_response([(RefusalRate, [a_curve()]), (Knowledge, [a_curve(values=(0.0, 0.0, -0.1, 0.1))])])
    assert trace(figure, "refusal_rate/scale/0").hovertext[2] == "CNA, strength 1: refused 40 % (95 %: 35 % to 45 %)"
    assert (
        "change from baseline −10 pp (95 %: −15 pp to −5 pp)" in trace(figure, "knowledge_change/scale/0").hovertext[2]
    )
    assert "40 %" in figure.layout.yaxis.ticktext
    assert "+10 pp" in figure.layout.yaxis2.ticktext


def test_the_causal_profile_shows_both_curves_and_the_random_band() -> None:
    layers = np.array([1, 3])
    alone = np.array([[-0.1, -0.15, -0.05], [-0.3, -0.4, -0.2]])
    figure = causal_profile(layers, alone, alone * 2, np.array([[0, -0.01, 0.01]] * 2), model_layers=5)
    marks = trace(figure, "alone")
    np.testing.assert_array_equal(marks.x, layers)
    np.testing.assert_allclose(marks.y, [-0.1, -0.3])
    np.testing.assert_allclose(marks.error_y.array, [0.05, 0.1])
    np.testing.assert_allclose(trace(figure, "others").y, [-0.2, -0.6])
    band = trace(figure, "random-band")
    np.testing.assert_allclose(np.array(band.base, dtype=float) + np.array(band.y, dtype=float), [0.01, 0.01])
    [frame] = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (frame.x0, frame.x1) == (3.5, 4.5)


def test_curves_come_out_of_a_run_with_what_it_measured_alone() -> None:
    points = (
        Point(strength=1, fraction=0.004, method="scale", refusal_rate=0.5, refusal_interval=(0.4, 0.6)),
        Point(strength=0, fraction=0.004, method="scale", refusal_rate=0.9, refusal_interval=(0.8, 1.0)),
        Point(strength=1, fraction=0.001, method="scale", refusal_rate=0.7, refusal_interval=(0.6, 0.8)),
        Point(strength=1, method="caa", refusal_rate=0.1, refusal_interval=(0.0, 0.2), knowledge=0.3),
    )
    run = a_run(points=points)
    cna, caa = curves_of(run, "refusal_rate")
    np.testing.assert_allclose(cna.strengths, [0, 1])
    np.testing.assert_allclose(cna.values, [0.9, 0.5])
    np.testing.assert_allclose(caa.high, [0.2])
    np.testing.assert_allclose(curves_of(run, "refusal_rate", 0.001)[0].values, [0.7])
    assert [curve.treatment for curve in curves_of(run, "knowledge", name="base", place=0)] == [Treatment("caa")]
    assert curves_of(run, "perplexity") == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_has_a_title_and_the_pages_background(dark: bool) -> None:
    for figure in (
        dose_response([(RefusalRate, [a_curve()])], dark=dark),
        refusal_against_quality([(a_curve(), a_curve())], dark=dark),
        grid_heatmap(np.array([0.0]), np.array([0.001]), np.array([[0.5]]), BenignDivergence, dark=dark),
        causal_profile(np.array([1]), np.array([[-0.1, -0.2, 0.0]]), dark=dark),
    ):
        assert figure.layout.title.text
        assert figure.layout.paper_bgcolor == palette.background(dark)

"""Claims about the chat's charts."""

import numpy as np
import pytest

from cna_core.figures.lanes import gate_meter, shown_token, token_trace

STRENGTHS = np.arange(-1, 2.01, 0.25)
CHANCES = np.linspace(0.9, 0.0, 13)


def traces(figure):  # type: ignore[no-untyped-def]
    return {trace.meta: trace for trace in figure.data}


@pytest.mark.parametrize(("at", "chance"), [(-1.0, 0.9), (0.5, 0.45), (1.1, 0.27), (2.0, 0.0)])
def test_the_dot_sits_on_the_curve_where_the_slider_is(at: float, chance: float) -> None:
    dot = traces(gate_meter(STRENGTHS, CHANCES, at))["slider"]
    assert dot.x[0] == at
    assert dot.y[0] == pytest.approx(chance)


def test_the_meters_axes_do_not_move_with_the_values() -> None:
    low, high = gate_meter(STRENGTHS, CHANCES * 0.01, 0.0), gate_meter(STRENGTHS, CHANCES, 2.0)
    assert low.layout.yaxis.range == high.layout.yaxis.range
    assert low.layout.xaxis.range == high.layout.xaxis.range == (-1, 2)


def test_the_meter_has_its_four_marks() -> None:
    axis = gate_meter(STRENGTHS, CHANCES, 1.0).layout.xaxis
    assert dict(zip(axis.tickvals, axis.ticktext, strict=True)) == {-1: "−1", 0: "0", 1: "1", 2: "2"}


def trace(divergence: np.ndarray | None = None, **changes: object):  # type: ignore[no-untyped-def]
    options = {"activity_limit": 2.0, "divergence_limit": 3.0, "shown_tokens": 10} | changes
    return token_trace(["Sure", "\n", "<b>"], np.array([0.1, -0.2, 0.3]), divergence, **options)


def test_strip_and_line_have_one_value_a_token_on_given_scales() -> None:
    figure = trace(np.array([0.0, 0.5, 2.5]))
    strip, line = traces(figure)["activity"], traces(figure)["divergence"]
    assert strip.z.shape == (1, 3) and (strip.zmin, strip.zmax) == (-2.0, 2.0)
    assert line.y.tolist() == [0.0, 0.5, 2.5]
    assert figure.layout.xaxis.range == (0.5, 10.5)
    assert figure.layout.yaxis2.range[1] > 3.0


def test_lanes_of_different_length_share_their_axes() -> None:
    other = token_trace(["a"], np.zeros(1), np.ones(1), activity_limit=2.0, divergence_limit=3.0, shown_tokens=10)
    assert other.layout.xaxis.range == trace().layout.xaxis.range
    assert other.layout.yaxis2.range == trace(np.ones(3)).layout.yaxis2.range


def test_the_baseline_has_a_strip_and_no_line() -> None:
    assert list(traces(trace())) == ["activity"]
    assert trace().layout.height < trace(np.ones(3)).layout.height


def test_where_they_part_is_marked() -> None:
    assert len(trace(parted_at=1).layout.shapes) > len(trace().layout.shapes)


@pytest.mark.parametrize(
    ("token", "shown"), [("\n", "⏎"), ("<script>", "&lt;script&gt;"), ("\x00", "␀"), ("", "·"), (" né", " né")]
)
def test_tokens_are_shown_as_text(token: str, shown: str) -> None:
    assert shown_token(token) == shown


def test_an_empty_answer_can_be_drawn() -> None:
    figure = token_trace([], np.zeros(0), None, activity_limit=0.0, divergence_limit=0.0, shown_tokens=0)
    assert traces(figure)["activity"].z.shape == (1, 0)

"""Refusals and side effects by strength: the main chart of one run or of several. Pure functions of arrays."""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cna_core.evaluation.measures.contract import Measure
from cna_core.figures import palette
from cna_core.figures.end_labels import EndLabel, label_ends, pixels_beside, pixels_of
from cna_core.figures.percents import logarithmic_axis, share_axis
from cna_core.figures.sweep_curves import Curve, PublishedMark, hover_words, published_trace

MAIN_PIXELS, COST_PIXELS, GAP_PIXELS = 300, 78, 44
"""Heights of the first panel, of each further panel, and of the gap above it, which holds its title."""
TOP_PIXELS, BOTTOM_PIXELS = 72, 52
_GUIDES = ((0.0, "solid"), (1.0, "dot"))


def dose_response(
    panels: Sequence[tuple[type[Measure], Sequence[Curve]]],
    *,
    published: Sequence[PublishedMark] = (),
    working_strength: float | None = None,
    prompts: int | None = None,
    strengths: tuple[float, float] | None = None,
    dark: bool = False,
) -> go.Figure:
    """The first measure in a large panel, the others in small panels below, each curve with its interval as a band.

    The traces' `meta` is "<field>/<method>/<run>", with "/band" for bands and "published" for hollow marks.

    Args:
        panels: measures and their curves, usually the refusal rate first. The first panel is drawn as an empty frame
            if it has no curves yet; others without curves are left out.
        published: the paper's numbers, drawn in the first panel.
        working_strength: the working point's strength, marked by a line.
        prompts: the number of prompts, shown above the first panel.
        strengths: the ends of the axis, for charts that fill while a sweep runs; None takes them from the data.
        dark: whether the page is dark.
    """
    drawn = [(measure, curves) for place, (measure, curves) in enumerate(panels) if curves or place == 0]
    names = [curve.name for curve in drawn[0][1]]
    pixels = [max(MAIN_PIXELS, pixels_of(names)), *[COST_PIXELS] * (len(drawn) - 1)]
    plot_pixels = sum(pixels) + GAP_PIXELS * (len(drawn) - 1)
    figure = make_subplots(
        rows=len(drawn),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=GAP_PIXELS / plot_pixels,
        row_heights=[height / sum(pixels) for height in pixels],
    )
    for row, (measure, curves) in enumerate(drawn, start=1):
        twins_first = sorted(curves, key=lambda curve: curve.look.strong)  # so that methods lie on top
        for curve in twins_first:
            _add_curve(figure, measure, curve, row, marks=row == 1)
        _value_axis(figure, measure, curves, row)
    for mark in published:
        figure.add_trace(published_trace(mark, mark.strength), row=1, col=1)
    title = f"Refusals{' and side effects' if len(drawn) > 1 else ''} by strength"
    margin = {"l": 56, "r": pixels_beside(names), "t": TOP_PIXELS, "b": BOTTOM_PIXELS}
    palette.frame(figure, title, TOP_PIXELS + plot_pixels + BOTTOM_PIXELS, dark, showlegend=False, margin=margin)
    _strength_axes(figure, strengths or _range_of(drawn), working_strength, len(drawn), dark)
    measured = f", of {prompts} harmful prompts" if prompts else ""
    for row, (measure, _) in enumerate(drawn, start=1):
        _title_panel(figure, f"{measure.panel_title()}{measured if row == 1 else ''}", row, dark)
    _label_ends(figure, *drawn[0], pixels[0], dark)
    return figure


def _strength_axes(
    figure: go.Figure, span: tuple[float, float], working_strength: float | None, rows: int, dark: bool
) -> None:
    """Set the same strength axis for every panel, with lines at baseline, ablation and the working point."""
    low, high = span
    lines = [(place, {"color": palette.muted(dark), "width": 1, "dash": dash}) for place, dash in _GUIDES]
    if working_strength is not None:
        lines.append((working_strength, {"color": palette.FINAL_FRAME, "width": 2}))
    for row in range(1, rows + 1):
        figure.update_xaxes(range=[low - 0.06, high + 0.06], dtick=0.5 if high - low <= 4 else None, row=row, col=1)
        for place, line in lines:
            if low <= place <= high:
                figure.add_vline(x=place, line=line, layer="below", row=row, col=1)
    figure.update_xaxes(title_text="strength: 0 baseline, 1 ablated, 2 inverted", row=rows, col=1)


def _add_curve(figure: go.Figure, measure: type[Measure], curve: Curve, row: int, marks: bool) -> None:
    look, meta = curve.look, f"{measure.drawn_field()}/{curve.key}"
    figure.add_trace(
        go.Scatter(
            meta=f"{meta}/band",
            x=np.concatenate([curve.strengths, curve.strengths[::-1]]),
            y=np.concatenate([curve.high, curve.low[::-1]]),
            fill="toself",
            fillcolor=palette.translucent(look.colour, 0.16 if look.strong else 0.08),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=row,
        col=1,
    )
    width = (2 if marks else 1.5) if look.strong else 1.2
    size = (7 if marks else 4) if look.strong else (5 if marks else 3)
    figure.add_trace(
        go.Scatter(
            name=palette.plain(curve.name),
            meta=meta,
            x=curve.strengths,
            y=curve.values,
            mode="lines+markers",
            line={"color": look.colour, "width": width, "dash": look.dash},
            marker={"color": look.colour, "size": size, "symbol": look.symbol},
            hovertext=hover_words(curve, measure),
            hoverinfo="text",
        ),
        row=row,
        col=1,
    )


def _value_axis(figure: go.Figure, measure: type[Measure], curves: Sequence[Curve], row: int) -> None:
    """Set a range that does not jump while a chart fills, and ticks in the measure's number format."""
    most = 6 if row == 1 else 4
    axis: dict[str, object] = {"nticks": most}
    reached, shown = _reached(measure, curves), _shown_range(measure, curves)
    if measure.axis.logarithmic:
        axis |= logarithmic_axis(10 ** reached[0], 10 ** reached[1], most) if reached else {"type": "log"}
    elif shown:
        axis["range"] = list(shown)
        if measure.numbers.is_share:
            axis |= share_axis(*shown, most, measure.drawn_as_change)
    figure.update_yaxes(**axis, row=row, col=1)


def _title_panel(figure: go.Figure, title: str, row: int, dark: bool) -> None:
    """Write a panel's title above it, which is easier to read than a rotated axis title.

    The title is placed in the figure, not on the panel's axis: an axis without traces is not drawn, and its
    annotations would be misplaced.
    """
    figure.add_annotation(
        text=title,
        xref="paper",
        yref="paper",
        x=0,
        y=figure.layout[f"yaxis{row if row > 1 else ''}"].domain[1],
        xanchor="left",
        yanchor="bottom",
        yshift=3,
        showarrow=False,
        font={"size": 12, "color": palette.ink(dark)},
    )


def _label_ends(figure: go.Figure, measure: type[Measure], curves: Sequence[Curve], pixels: float, dark: bool) -> None:
    shown = _shown_range(measure, curves)
    if shown is None:
        return
    ends = [
        EndLabel(curve.name, float(curve.strengths[-1]), _on_axis(measure, float(curve.values[-1])), curve.look.colour)
        for curve in curves
        if len(curve.values)
    ]
    label_ends(figure, ends, shown, pixels, dark)


def _reached(measure: type[Measure], curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The range of a panel's values, in axis units, including the measure's floor and ceiling; None for no data."""
    ends = [part for curve in curves for part in (curve.values, curve.low, curve.high)]
    known = np.concatenate([*ends, [end for end in (measure.axis.floor, measure.axis.ceiling) if end is not None]])
    known = known[np.isfinite(known)]
    if measure.axis.logarithmic:
        known = np.log10(known[known > 0])
    if not len(known):
        return None
    return float(known.min()), float(known.max())


def _shown_range(measure: type[Measure], curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The range that a panel's axis shows, in axis units."""
    reached = _reached(measure, curves)
    if reached is None:
        return None
    margin = 0.06 * (reached[1] - reached[0]) or 0.05 * max(abs(reached[1]), 0.1)
    return reached[0] - margin, reached[1] + margin


def _on_axis(measure: type[Measure], value: float) -> float:
    return math.log10(max(value, 1e-9)) if measure.axis.logarithmic else value


def _range_of(panels: Sequence[tuple[type[Measure], Sequence[Curve]]]) -> tuple[float, float]:
    ends = [curve.strengths[[0, -1]] for _, curves in panels for curve in curves if len(curve.strengths)]
    if not ends:
        return -1.0, 2.0
    return float(min(end[0] for end in ends)), float(max(end[1] for end in ends))

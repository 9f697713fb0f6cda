"""Refusal and what it costs over strength: the main chart of a run, and of several. Pure functions of arrays."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cna_core.figures import palette
from cna_core.figures.percents import logarithmic_axis, share_axis
from cna_core.figures.sweep_curves import DASHES, SYMBOLS, Curve, PublishedMark, Quantity, colour_of, published_trace

MAIN_PIXELS, COST_PIXELS, GAP_PIXELS = 300, 78, 44
"""Heights of the first panel, of each further one, and of the gap above it, which holds its title."""
TOP_PIXELS, BOTTOM_PIXELS = 72, 52
LINE_LETTERS, MOST_LINES = 18, 3
"""A curve's name stands beside its end, in lines of so many letters."""
_GUIDES = ((0.0, "solid"), (1.0, "dot"))


def dose_response(
    panels: Sequence[tuple[Quantity, Sequence[Curve]]],
    *,
    published: Sequence[PublishedMark] = (),
    working_strength: float | None = None,
    prompts: int | None = None,
    strengths: tuple[float, float] | None = None,
    dark: bool = False,
) -> go.Figure:
    """The first quantity large, the others below it, over the same strengths, each curve with its interval as a band.

    Traces' `meta` is "<measure>/<method>/<style>", with "/band" for bands and "published" for hollow marks.

    Args:
        panels: what to draw, first the refusal rate as a rule. The first stays as an empty frame where it has no curves
            yet; others without curves are left out.
        published: the paper's figures, drawn in the first panel.
        working_strength: marked by a line, where one was chosen.
        prompts: how many, said over the first panel.
        strengths: the axis from and to, for charts that fill while a sweep runs; None: as the data ask.
        dark: for a dark page.
    """
    drawn = [(quantity, curves) for place, (quantity, curves) in enumerate(panels) if curves or place == 0]
    pixels = [MAIN_PIXELS, *[COST_PIXELS] * (len(drawn) - 1)]
    plot_pixels = sum(pixels) + GAP_PIXELS * (len(drawn) - 1)
    figure = make_subplots(
        rows=len(drawn),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=GAP_PIXELS / plot_pixels,
        row_heights=[height / sum(pixels) for height in pixels],
    )
    for row, (quantity, curves) in enumerate(drawn, start=1):
        for curve in reversed(curves):  # the circuit lies on top of its controls
            _add_curve(figure, quantity, curve, row, marks=row == 1)
        _value_axis(figure, quantity, curves, row)
    for mark in published:
        figure.add_trace(published_trace(mark, mark.strength), row=1, col=1)
    title = f"Refusal{' and what it costs' if len(drawn) > 1 else ''}, by strength"
    longest = max((len(line) for curve in drawn[0][1] for line in _lines(curve.name)), default=6)
    margin = {"l": 56, "r": 28 + 7 * longest, "t": TOP_PIXELS, "b": BOTTOM_PIXELS}  # room for the curves' names
    palette.frame(figure, title, TOP_PIXELS + plot_pixels + BOTTOM_PIXELS, dark, showlegend=False, margin=margin)
    _strength_axes(figure, strengths or _range_of(drawn), working_strength, len(drawn), dark)
    measured = f", of {prompts} harmful prompts" if prompts else ""
    for row, (quantity, _) in enumerate(drawn, start=1):
        _title_panel(figure, f"{quantity.title}{measured if row == 1 else ''}", row, dark)
    _label_ends(figure, drawn[0][0], drawn[0][1], dark)
    return figure


def _strength_axes(
    figure: go.Figure, span: tuple[float, float], working_strength: float | None, rows: int, dark: bool
) -> None:
    """The same strengths for every panel, with lines at baseline, ablation, and the working point."""
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


def _add_curve(figure: go.Figure, quantity: Quantity, curve: Curve, row: int, marks: bool) -> None:
    colour, meta = colour_of(curve.treatment), f"{quantity.measure}/{curve.treatment.key}/{curve.style}"
    figure.add_trace(
        go.Scatter(
            meta=f"{meta}/band",
            x=np.concatenate([curve.strengths, curve.strengths[::-1]]),
            y=np.concatenate([curve.high, curve.low[::-1]]),
            fill="toself",
            fillcolor=palette.translucent(colour, 0.16),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=row,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            name=curve.name,
            meta=meta,
            x=curve.strengths,
            y=curve.values,
            mode="lines+markers",
            line={"color": colour, "width": 2 if marks else 1.5, "dash": DASHES[curve.style % 4]},
            marker={"color": colour, "size": 7 if marks else 4, "symbol": SYMBOLS[curve.style % 4]},
            hovertext=[
                f"{curve.name}, strength {strength:g}: {quantity.title} {quantity.say(value)} "
                f"(95 %: {quantity.say(low)} to {quantity.say(high)})"
                for strength, value, low, high in zip(curve.strengths, curve.values, curve.low, curve.high, strict=True)
            ],
            hoverinfo="text",
        ),
        row=row,
        col=1,
    )


def _value_axis(figure: go.Figure, quantity: Quantity, curves: Sequence[Curve], row: int) -> None:
    """Ranges that do not jump while a chart fills: never less than the quantity's floor to ceiling."""
    most = 6 if row == 1 else 4
    axis: dict[str, object] = {"nticks": most}
    ends = [part for curve in curves for part in (curve.values, curve.low, curve.high)]
    known = np.concatenate(ends) if ends else np.empty(0)
    known = known[np.isfinite(known)]
    if quantity.logarithmic:
        known = known[known > 0]
        axis |= logarithmic_axis(float(known.min()), float(known.max()), most) if len(known) else {"type": "log"}
    elif quantity.floor is not None and quantity.ceiling is not None:
        low, high = min([quantity.floor, *known.tolist()]), max([quantity.ceiling, *known.tolist()])
        margin = 0.06 * (high - low)
        axis["range"] = [low - margin, high + margin]
        if quantity.percent:
            axis |= share_axis(low - margin, high + margin, most, quantity.signed)
    figure.update_yaxes(**axis, row=row, col=1)


def _title_panel(figure: go.Figure, title: str, row: int, dark: bool) -> None:
    """Say above a panel what it shows: read faster than a title turned on its side, and short of nothing.

    Placed in the figure, not on the panel's axis: an axis without traces is not drawn, and what hangs on it lands
    elsewhere.
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


def _label_ends(figure: go.Figure, quantity: Quantity, curves: Sequence[Curve], dark: bool) -> None:
    """Curves' names at their right ends, moved apart where they would overlap: up, and down from the top."""
    ends = sorted((curve for curve in curves if len(curve.values)), key=lambda curve: float(curve.values[-1]))
    if not ends:
        return
    line_height = 0.055 * max((quantity.ceiling or 1.0) - (quantity.floor or 0.0), 1e-9)
    halves = [0.5 * line_height * len(_lines(curve.name)) for curve in ends]
    places = [float(curve.values[-1]) for curve in ends]
    for upper in range(1, len(ends)):
        places[upper] = max(places[upper], places[upper - 1] + halves[upper - 1] + halves[upper])
    if quantity.ceiling is not None:
        limit = max(quantity.ceiling, float(ends[-1].values[-1])) + line_height
        for number in reversed(range(len(ends))):
            places[number] = min(places[number], limit - halves[number])
            limit = places[number] - halves[number]
    for place, curve in zip(places, ends, strict=True):
        figure.add_annotation(
            text="<br>".join(_lines(curve.name)),
            align="left",
            xref="paper",  # an annotation beyond the end of its axis would not be drawn
            yref="y",
            x=1,
            xshift=4,
            y=math.log10(max(place, 1e-9)) if quantity.logarithmic else place,
            xanchor="left",
            yanchor="middle",
            showarrow=False,
            font={"size": 12, "color": palette.muted(dark) if curve.treatment.is_twin else colour_of(curve.treatment)},
        )


def _range_of(panels: Sequence[tuple[Quantity, Sequence[Curve]]]) -> tuple[float, float]:
    ends = [curve.strengths[[0, -1]] for _, curves in panels for curve in curves if len(curve.strengths)]
    if not ends:
        return -1.0, 2.0
    return float(min(end[0] for end in ends)), float(max(end[1] for end in ends))


def _lines(name: str) -> list[str]:
    """A name in short lines; of a very long one the middle is left out, as its end tells curves of a run apart."""
    lines = textwrap.wrap(name, LINE_LETTERS) or [""]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 2], f"{lines[MOST_LINES - 2]}…", lines[-1]]

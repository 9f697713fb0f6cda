"""What a sweep found: refusal and its costs over strength, refusal against quality, the grid, and the causal profile.

Pure functions of arrays; `curves_of` takes them out of a run. CNA vermilion, random grey, CAA purple everywhere;
further runs of a comparison differ by their dashes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cna_core.evaluation.runs import Control, Run
from cna_core.figures import palette

COLOURS: dict[Control, str] = {"cna": palette.STEERED, "random": palette.RANDOM, "caa": palette.CAA}
NAMES: dict[Control, str] = {"cna": "CNA", "random": "random", "caa": "CAA"}
DASHES = ("solid", "dash", "dot", "dashdot")
LONGEST_NAME = 24
SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Quantity:
    """One measure as it is drawn.

    Args:
        measure: its field in a point.
        title: axis title.
        percent: whether it is a share.
        logarithmic: whether its axis is.
        floor, ceiling: the least range of the axis; None: as the data ask.
    """

    measure: str
    title: str
    percent: bool = False
    logarithmic: bool = False
    floor: float | None = None
    ceiling: float | None = None

    @property
    def pattern(self) -> str:
        return ".0%" if self.percent else ".3~g"


REFUSAL = Quantity("refusal_rate", "refused", percent=True, floor=0, ceiling=1)
QUALITY = Quantity("quality", "quality (4-gram)", floor=0.5, ceiling=1)
COSTS = (
    Quantity("benign_refusal_rate", "benign refused", percent=True, floor=0, ceiling=0.2),
    Quantity("borderline_refusal_rate", "over-refused", percent=True, floor=0, ceiling=0.2),
    QUALITY,
    Quantity("perplexity", "perplexity", logarithmic=True),
    Quantity("benign_kl", "benign KL, nats", floor=0, ceiling=0.1),
    Quantity("knowledge", "knowledge", percent=True, floor=0, ceiling=0.5),
)
QUANTITIES = {
    quantity.measure: quantity
    for quantity in (REFUSAL, *COSTS, Quantity("refusal_chance", "refusal chance", percent=True, floor=0, ceiling=1))
}


@dataclass(frozen=True)
class Curve:
    """A measure over strengths; every array is (n,), strengths ascending.

    Args:
        name: its direct label.
        control: decides the colour.
        strengths: float64.
        values, low, high: the measure and its 95 % interval.
        style: 0 for the first run, 1, 2 … for others in a comparison.
    """

    name: str
    control: Control
    strengths: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    style: int = 0


@dataclass(frozen=True)
class PublishedMark:
    """A figure of the paper for this model: hollow, at its strength."""

    strength: float
    refusal: float
    words: str
    control: Control = "cna"
    quality: float | None = None


def curves_of(
    run: Run, measure: str, fraction: float | None = None, name: str | None = None, style: int = 0
) -> list[Curve]:
    """The curves of a run for one measure, CNA first; those that did not measure it are left out.

    Args:
        fraction: circuit size; None: the run's largest.
        name: the run's, for a comparison; None: curves are named by their control alone.
    """
    curves = []
    for control in ("cna", "random", "caa"):
        taken = [(point.strength, point.estimate(measure)) for point in run.series(control, fraction)]
        known = [(strength, *estimate) for strength, estimate in taken if estimate is not None]
        if known:
            label = NAMES[control] if name is None else f"{name} {NAMES[control]}"
            strengths, values, low, high = np.array(known, dtype=np.float64).T
            curves.append(Curve(label, control, strengths, values, low, high, style))
    return curves


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

    Traces' `meta` is "<measure>/<control>/<style>", with "/band" for bands and "published" for hollow marks.

    Args:
        panels: what to draw, first the refusal rate as a rule; panels without curves stay as empty frames.
        published: the paper's figures, drawn in the first panel.
        working_strength: marked by a line, where one was chosen.
        prompts: how many, for the title.
        strengths: the axis from and to, for charts that fill while a sweep runs; None: as the data ask.
        dark: for a dark page.
    """
    heights = [2.6] + [1.0] * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.5 / (3 + 2 * len(panels)),
        row_heights=heights if panels else None,
    )
    for row, (quantity, curves) in enumerate(panels, start=1):
        for curve in curves:
            _add_curve(figure, quantity, curve, row, marks=row == 1)
        _value_axis(figure, quantity, curves, row)
        _title_panel(figure, quantity, row, dark)
    for mark in published:
        _add_published(figure, mark)
    measured = f" of {prompts} harmful prompts" if prompts else ""
    height = 470 + 128 * (len(panels) - 1)
    title = f"Refusal{measured}{' and what it costs' if len(panels) > 1 else ''}, by strength"
    longest = max((len(_shortened(curve.name)) for _, curves in panels[:1] for curve in curves), default=6)
    margin = {"l": 52, "r": 28 + 7 * longest, "t": 64, "b": 52}  # room for the curves' names
    palette.frame(figure, title, height, dark, showlegend=False, margin=margin)
    low, high = strengths or _range_of(panels)
    for row in range(1, len(panels) + 1):
        figure.update_xaxes(range=[low - 0.06, high + 0.06], dtick=0.5 if high - low <= 4 else None, row=row, col=1)
        for place, dash in ((0.0, "solid"), (1.0, "dot")):
            if low <= place <= high:
                figure.add_vline(x=place, line={"color": palette.muted(dark), "width": 1, "dash": dash}, row=row, col=1)
        if working_strength is not None:
            figure.add_vline(x=working_strength, line={"color": palette.FINAL_FRAME, "width": 2}, row=row, col=1)
    figure.update_xaxes(title_text="strength: 0 baseline, 1 ablated, 2 inverted", row=len(panels), col=1)
    if panels:
        _label_ends(figure, panels[0][0], panels[0][1], dark)
    return figure


def refusal_against_quality(
    pairs: Sequence[tuple[Curve, Curve]],
    *,
    published: Sequence[PublishedMark] = (),
    quality: Quantity = QUALITY,
    dark: bool = False,
) -> go.Figure:
    """Each setting as a mark: how much is refused, and how good the text still is. Down and to the right is better.

    Args:
        pairs: for each curve the refusal rates and the qualities, over the same strengths.
        published: the paper's figures that have both.
        quality: what stands on the horizontal axis.
        dark: for a dark page.
    """
    figure = go.Figure()
    for refusal, good in pairs:
        shared, mine, theirs = np.intersect1d(refusal.strengths, good.strengths, return_indices=True)
        colour = COLOURS[refusal.control]
        figure.add_trace(
            go.Scatter(
                name=refusal.name,
                meta=f"pareto/{refusal.control}/{refusal.style}",
                x=good.values[theirs],
                y=refusal.values[mine],
                mode="lines+markers+text",
                text=[f"{strength:g}" if _is_round(strength) else "" for strength in shared],
                textposition="top center",
                textfont={"size": 10, "color": colour},
                line={"color": palette.translucent(colour, 0.45), "width": 1.5, "dash": DASHES[refusal.style % 4]},
                marker={"color": colour, "size": 8, "symbol": SYMBOLS[refusal.style % 4]},
                customdata=shared,
                hovertemplate=(
                    f"{refusal.name} at strength %{{customdata:g}}: %{{y:.0%}} refused, "
                    f"{quality.title} %{{x:{quality.pattern}}}<extra></extra>"
                ),
                error_y=_whiskers(refusal, mine, colour),
            )
        )
    for mark in published:
        if mark.quality is not None:
            figure.add_trace(_published_trace(mark, mark.quality))
    palette.frame(figure, "Refusal against quality, a mark for each strength", 430, dark)
    figure.update_yaxes(title_text="refused", tickformat=".0%", range=[-0.03, 1.03])
    figure.update_xaxes(title_text=f"{quality.title} →", type="log" if quality.logarithmic else "linear")
    return figure


def grid_heatmap(
    strengths: NDArray[np.floating],
    fractions: NDArray[np.floating],
    values: NDArray[np.floating],
    quantity: Quantity = REFUSAL,
    *,
    chosen: tuple[float, float] | None = None,
    dark: bool = False,
) -> go.Figure:
    """A measure over circuit size and strength, its number in each cell.

    Args:
        strengths: (s,), fractions: (f,) shares of all neurons, both ascending.
        values: (f, s); NaN where nothing was measured.
        chosen: (strength, fraction) of the working point, framed in gold.
        dark: for a dark page.
    """
    values = np.asarray(values, dtype=np.float64)
    columns = [f"{strength:g}" for strength in strengths]
    rows = [f"{100 * fraction:g} %" for fraction in fractions]
    words = [[_number(value, quantity) for value in line] for line in values]
    ceiling = 1.0 if quantity.percent else float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    figure = go.Figure(
        go.Heatmap(
            meta=f"grid/{quantity.measure}",
            x=columns,
            y=rows,
            z=values,
            text=words,
            texttemplate="%{text}",
            zmin=0 if quantity.percent or quantity.floor == 0 else None,
            zmax=ceiling,
            colorscale=palette.sequential(dark),
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate=f"strength %{{x}}, %{{y}} of all neurons: {quantity.title} %{{text}}<extra></extra>",
        )
    )
    height = 150 + 44 * max(2, len(rows))
    palette.frame(figure, f"{quantity.title.capitalize()}, by circuit size and strength", height, dark)
    figure.update_layout(margin={"l": 96})
    figure.update_xaxes(type="category", title_text="strength", showgrid=False)
    figure.update_yaxes(type="category", title_text="circuit, share of all neurons", showgrid=False)
    if chosen is not None and f"{chosen[0]:g}" in columns and f"{100 * chosen[1]:g} %" in rows:
        column, row = columns.index(f"{chosen[0]:g}"), rows.index(f"{100 * chosen[1]:g} %")
        box = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", **box, line={"color": palette.FINAL_FRAME, "width": 3})
    return figure


def causal_profile(
    layers: NDArray[np.integer],
    alone: NDArray[np.floating],
    others: NDArray[np.floating] | None = None,
    random_band: NDArray[np.floating] | None = None,
    *,
    whole: tuple[float, float, float] | None = None,
    model_layers: int | None = None,
    final: float = 0.10,
    dark: bool = False,
) -> go.Figure:
    """Which layers do it: the change of the refusal chance by ablating each layer's circuit neurons alone.

    Traces' `meta` is "alone", "others", "random-band" or "random".

    Args:
        layers: (l,) that hold neurons of the circuit.
        alone, others, random_band: (l, 3) mean change and its interval: only that layer's, all but that layer's, and as
            many random neurons of the layer.
        whole: the whole circuit's change and interval, drawn as a line.
        model_layers: how many layers the model has; None: up to the last that is drawn.
        final: the share of the layers that is framed.
        dark: for a dark page.
    """
    layers, alone = np.asarray(layers), np.asarray(alone, dtype=np.float64)
    count = model_layers or int(layers.max()) + 1
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": palette.muted(dark), "width": 1})
    if random_band is not None and len(random_band):
        _add_random_band(figure, layers, np.asarray(random_band, dtype=np.float64))
    if others is not None:
        marks = np.asarray(others, dtype=np.float64)
        _add_changes(figure, "all but this layer", "others", layers, marks, "circle-open", dark)
    _add_changes(figure, "this layer alone", "alone", layers, alone, "circle", dark)
    if whole is not None:
        figure.add_hline(
            y=whole[0],
            line={"color": palette.STEERED, "width": 1, "dash": "dash"},
            annotation={"text": f"whole circuit {whole[0]:+.0%}", "font": {"color": palette.STEERED, "size": 11}},
            annotation_position="top left",
        )
    palette.frame(figure, "Which layers do it: change of the refusal chance when ablated", 380, dark)
    figure.update_xaxes(title_text="layer", range=[-0.7, count - 0.3], dtick=2 if count <= 40 else 5)
    figure.update_layout(margin={"l": 72})
    figure.update_yaxes(title_text="change of refusal chance", tickformat="+.0%")
    first = count - max(1, round(final * count))
    frame = {"x0": first - 0.5, "x1": count - 0.5, "y0": 0, "y1": 1, "yref": "paper"}
    figure.add_shape(type="rect", **frame, line={"color": palette.FINAL_FRAME, "width": 2})
    return figure


def _add_curve(figure: go.Figure, quantity: Quantity, curve: Curve, row: int, marks: bool) -> None:
    colour, meta = COLOURS[curve.control], f"{quantity.measure}/{curve.control}/{curve.style}"
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
            customdata=np.stack([curve.low, curve.high], -1),
            hovertemplate=(
                f"{curve.name}, strength %{{x:g}}: {quantity.title} %{{y:{quantity.pattern}}} "
                f"(95 %: %{{customdata[0]:{quantity.pattern}}} to %{{customdata[1]:{quantity.pattern}}})<extra></extra>"
            ),
        ),
        row=row,
        col=1,
    )


def _value_axis(figure: go.Figure, quantity: Quantity, curves: Sequence[Curve], row: int) -> None:
    """Ranges that do not jump while a chart fills: never less than the quantity's floor to ceiling."""
    axis: dict[str, object] = {"nticks": 5 if row == 1 else 3}
    if quantity.percent:
        axis["tickformat"] = ".0%"
    if quantity.logarithmic:
        axis["type"] = "log"
    elif quantity.floor is not None and quantity.ceiling is not None:
        ends = [part for curve in curves for part in (curve.values, curve.low, curve.high)]
        known = np.concatenate(ends) if ends else np.empty(0)
        known = known[np.isfinite(known)]
        low, high = min([quantity.floor, *known.tolist()]), max([quantity.ceiling, *known.tolist()])
        margin = 0.06 * (high - low)
        axis["range"] = [low - margin, high + margin]
    figure.update_yaxes(**axis, row=row, col=1)


def _title_panel(figure: go.Figure, quantity: Quantity, row: int, dark: bool) -> None:
    """Say above a panel what it shows: read faster than a title turned on its side, and short of nothing."""
    figure.add_annotation(
        text=quantity.title,
        xref="paper",
        yref=f"y{row if row > 1 else ''} domain",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        yshift=2,
        showarrow=False,
        font={"size": 12, "color": palette.ink(dark)},
    )


def _add_published(figure: go.Figure, mark: PublishedMark) -> None:
    figure.add_trace(_published_trace(mark, mark.strength), row=1, col=1)


def _published_trace(mark: PublishedMark, x: float) -> go.Scatter:
    return go.Scatter(
        name="published",
        meta=f"published/{mark.control}",
        x=[x],
        y=[mark.refusal],
        mode="markers",
        marker={
            "size": 12,
            "symbol": "circle-open",
            "color": palette.BASELINE if mark.strength == 0 else COLOURS[mark.control],
            "line": {"width": 2},
        },
        hovertemplate=f"published: %{{y:.0%}} refused, {mark.words}<extra></extra>",
        showlegend=False,
    )


def _label_ends(figure: go.Figure, quantity: Quantity, curves: Sequence[Curve], dark: bool) -> None:
    """Curves' names at their right ends, moved apart where they would overlap."""
    ends = [(float(curve.values[-1]), curve) for curve in curves if len(curve.values)]
    if not ends:
        return
    span = max((quantity.ceiling or 1.0) - (quantity.floor or 0.0), 1e-9)
    least = 0.055 * span
    placed: list[float] = []
    for value, curve in sorted(ends, key=lambda pair: pair[0]):
        place = max(value, placed[-1] + least) if placed else value
        placed.append(place)
        figure.add_annotation(
            text=_shortened(curve.name),
            xref="paper",  # an annotation beyond the end of its axis would not be drawn
            yref="y",
            x=1,
            xshift=4,
            y=math.log10(max(place, 1e-9)) if quantity.logarithmic else place,
            xanchor="left",
            yanchor="middle",
            showarrow=False,
            font={"size": 12, "color": COLOURS[curve.control] if curve.control != "random" else palette.muted(dark)},
        )


def _add_random_band(figure: go.Figure, layers: NDArray, band: NDArray[np.float64]) -> None:
    figure.add_trace(
        go.Bar(
            name="random neurons of the layer",
            meta="random-band",
            x=layers,
            base=band[:, 1],
            y=band[:, 2] - band[:, 1],
            width=0.9,
            marker={"color": palette.translucent(palette.RANDOM, 0.35), "line": {"width": 0}},
            customdata=band,
            hovertemplate=(
                "layer %{x}, as many random neurons: %{customdata[0]:+.1%} "
                "(95 %: %{customdata[1]:+.1%} to %{customdata[2]:+.1%})<extra></extra>"
            ),
        )
    )


def _add_changes(
    figure: go.Figure, name: str, meta: str, layers: NDArray, changes: NDArray, symbol: str, dark: bool
) -> None:
    colour = palette.STEERED if meta == "alone" else palette.muted(dark)
    figure.add_trace(
        go.Scatter(
            name=name,
            meta=meta,
            x=layers + (0.0 if meta == "alone" else 0.22),
            y=changes[:, 0],
            mode="markers",
            marker={"size": 9 if meta == "alone" else 7, "symbol": symbol, "color": colour},
            error_y={
                "type": "data",
                "array": changes[:, 2] - changes[:, 0],
                "arrayminus": changes[:, 0] - changes[:, 1],
                "color": palette.translucent(colour, 0.6),
                "thickness": 1,
                "width": 2,
            },
            customdata=layers,
            hovertemplate=f"layer %{{customdata}}, {name} ablated: %{{y:+.1%}}<extra></extra>",
        )
    )


def _whiskers(curve: Curve, places: NDArray, colour: str) -> dict[str, object]:
    values = curve.values[places]
    return {
        "type": "data",
        "array": curve.high[places] - values,
        "arrayminus": values - curve.low[places],
        "color": palette.translucent(colour, 0.35),
        "thickness": 1,
        "width": 0,
    }


def _range_of(panels: Sequence[tuple[Quantity, Sequence[Curve]]]) -> tuple[float, float]:
    ends = [curve.strengths[[0, -1]] for _, curves in panels for curve in curves if len(curve.strengths)]
    if not ends:
        return -1.0, 2.0
    return float(min(end[0] for end in ends)), float(max(end[1] for end in ends))


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _is_round(strength: float) -> bool:
    return math.isclose(strength, round(strength), abs_tol=1e-9)


def _number(value: float, quantity: Quantity) -> str:
    if not math.isfinite(value):
        return ""
    return f"{100 * value:.0f} %" if quantity.percent else f"{value:.3g}"

"""The layer panel beside the map: circuit neurons, share of |δ| mass and causal effect of each layer, with nulls.

Pure functions of (layers,) arrays. The layer axis is that of the map (heatmap.py), so the charts line up.
"""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cna_core.figures import palette
from cna_core.figures.heatmap import HEIGHT, MARGIN_BOTTOM, MARGIN_TOP, layer_axis

Band = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
"""(low, mean, high), each (layers,)."""


def layer_profile(
    layer_counts: NDArray[np.integer],
    *,
    null_counts: Band | None = None,
    mass: NDArray[np.floating] | None = None,
    mass_normalised: NDArray[np.floating] | None = None,
    null_mass: Band | None = None,
    effect_share: NDArray[np.floating] | None = None,
    causal_effect: Band | None = None,
    null_effect: Band | None = None,
    causal_name: str = "change of refusal",
    layers: tuple[int, int] | None = None,
    final: float = 0.10,
    height: int = HEIGHT,
    dark: bool = False,
) -> go.Figure:
    """Panels side by side over the same layers: circuit neurons, |δ| mass and causal effect, as far as given.

    The traces' `meta` is "null-counts", "counts", "null-counts-ends", "null-mass", "mass", "mass-normalised",
    "effect-share", "null-effect" or "causal-effect".

    Args:
        layer_counts: (layers,) number of circuit neurons in each layer.
        null_counts: the counts with shuffled labels, drawn as a grey band.
        mass, mass_normalised: (layers,) shares of |δ|, raw and after dividing each layer by its activation scale.
        null_mass: `mass` with shuffled labels.
        effect_share: (layers,) shares of the effect towards refusal, drawn beside `mass`.
        causal_effect: the effect of ablating each layer's circuit neurons; NaN if it was not measured.
        null_effect: the effect of ablating as many random neurons of each layer, drawn as a grey band.
        causal_name: the causal panel's axis title, which names what the effect is measured on.
        layers: first and last layer shown; None shows all.
        final: the share of the layers that is framed.
        height: in pixels.
        dark: whether the page is dark.
    """
    count = len(layer_counts)
    panels = 1 + (mass is not None) + (causal_effect is not None)
    figure = make_subplots(rows=1, cols=panels, shared_yaxes=True, horizontal_spacing=0.11)
    numbers = np.arange(count)
    if null_counts is not None:
        _add_band(figure, numbers, null_counts, "shuffled labels, 95 %", "null-counts", ":.1f", 1, dark)
    figure.add_trace(
        go.Bar(
            name="circuit",
            meta="counts",
            y=numbers,
            x=np.asarray(layer_counts),
            orientation="h",
            width=0.55,
            marker={"color": palette.ink(dark)},
            customdata=numbers,
            hovertemplate="layer %{y}: %{x} neurons of the circuit<extra></extra>",
            unselected={"marker": {"opacity": 1}},
        ),
        row=1,
        col=1,
    )
    if null_counts is not None:
        figure.add_trace(_ends(numbers, null_counts, dark), row=1, col=1)
    figure.update_xaxes(title_text="circuit neurons", rangemode="tozero", nticks=4, row=1, col=1)
    if mass is not None:
        _add_mass(figure, numbers, mass, mass_normalised, null_mass, effect_share, dark)
    if causal_effect is not None:
        _add_effect(figure, numbers, causal_effect, null_effect, causal_name, panels, dark)
    palette.frame(
        figure,
        "Circuit by layer" if causal_effect is None else "Circuit and effect by layer",
        height,
        dark,
        margin={"l": 44, "r": 12, "t": MARGIN_TOP, "b": MARGIN_BOTTOM},
        barmode="overlay",
        bargap=0,
        showlegend=False,
    )
    shuffled = ("■", palette.RANDOM, "shuffled")
    _label(figure, 1, [("■", palette.ink(dark), "circuit"), *([shuffled] if null_counts is not None else [])], dark)
    if mass is not None:
        if effect_share is not None:
            marks = [("●", palette.ink(dark), "δ"), ("◆", palette.STEERED, "effect")]
        else:
            scaled = [("○", palette.ink(dark), "by scale")] if mass_normalised is not None else []
            marks = [("●", palette.ink(dark), "raw"), *scaled]
        _label(figure, 2, marks, dark)
    if causal_effect is not None:
        drawn = [("■", palette.RANDOM, "random")] if null_effect is not None else []
        _label(figure, panels, [("●", palette.STEERED, "ablated"), *drawn], dark)
    first, last = layers or (0, count - 1)
    layer_axis(figure, first, last, title="")
    figure.update_yaxes(title_text="layer", col=1)
    _frame_final(figure, count, final, panels)
    return figure


def _add_band(
    figure: go.Figure, numbers: NDArray, band: Band, name: str, meta: str, pattern: str, column: int, dark: bool
) -> None:
    low, mean, high = (np.asarray(part, dtype=np.float64) for part in band)
    figure.add_trace(
        go.Bar(
            name=name,
            meta=meta,
            y=numbers,
            base=low,
            x=high - low,
            orientation="h",
            width=1,
            marker={"color": palette.translucent(palette.RANDOM, 0.4 if dark else 0.35), "line": {"width": 0}},
            customdata=np.stack([low, mean, high], -1),
            hovertemplate=(
                f"layer %{{y}}, {name.removesuffix(', 95 %')}: %{{customdata[1]{pattern}}} "
                f"(95 %: %{{customdata[0]{pattern}}} to %{{customdata[2]{pattern}}})<extra></extra>"
            ),
            unselected={"marker": {"opacity": 1}},
            showlegend=column == 1,
        ),
        row=1,
        col=column,
    )


def _ends(numbers: NDArray, band: Band, dark: bool) -> go.Scatter:
    """Both ends of a band, as strokes that a bar does not hide."""
    low, _, high = band
    return go.Scatter(
        name="ends of the shuffled band",
        meta="null-counts-ends",
        x=np.concatenate([low, high]),
        y=np.concatenate([numbers, numbers]),
        mode="markers",
        marker={"symbol": "line-ns", "size": 9, "line": {"width": 2, "color": palette.RANDOM}},
        hoverinfo="skip",
    )


def _add_mass(
    figure: go.Figure,
    numbers: NDArray,
    mass: NDArray[np.floating],
    normalised: NDArray[np.floating] | None,
    null_mass: Band | None,
    effect_share: NDArray[np.floating] | None,
    dark: bool,
) -> None:
    if null_mass is not None:
        _add_band(figure, numbers, null_mass, "shuffled labels, 95 %", "null-mass", ":.1%", 2, dark)
    ink = palette.ink(dark)
    lines = [("share of |δ|", "mass", mass, "solid", "circle", ink)]
    if normalised is not None:
        lines.append(("divided by activation scale", "mass-normalised", normalised, "dot", "circle-open", ink))
    if effect_share is not None:
        lines.append(("share of effect", "effect-share", effect_share, "solid", "diamond", palette.STEERED))
    for name, meta, values, dash, symbol, colour in lines:
        figure.add_trace(
            go.Scatter(
                name=name,
                meta=meta,
                x=np.asarray(values),
                y=numbers,
                mode="lines+markers",
                line={"color": colour, "width": 1.5, "dash": dash},
                marker={"size": 5, "symbol": symbol, "color": colour},
                hovertemplate=f"layer %{{y}}: {name} %{{x:.1%}}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    title = "share of |δ| mass" if effect_share is None else "share of |δ|, of effect"
    figure.update_xaxes(title_text=title, tickformat=".0%", rangemode="tozero", nticks=4, row=1, col=2)


def _add_effect(
    figure: go.Figure, numbers: NDArray, effect: Band, null: Band | None, name: str, column: int, dark: bool
) -> None:
    if null is not None:
        drawn = np.isfinite(null[1])
        of_random = (null[0][drawn], null[1][drawn], null[2][drawn])
        _add_band(figure, numbers[drawn], of_random, "random neurons", "null-effect", ":+.3f", column, dark)
    low, mean, high = (np.asarray(part) for part in effect)
    measured = np.isfinite(mean)
    figure.add_vline(x=0, line={"color": palette.muted(dark), "width": 1}, row=1, col=column)
    figure.add_trace(
        go.Scatter(
            name="causal effect",
            meta="causal-effect",
            x=mean[measured],
            y=numbers[measured],
            mode="markers",
            marker={"size": 7, "color": palette.STEERED},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (high - mean)[measured],
                "arrayminus": (mean - low)[measured],
                "color": palette.STEERED,
                "thickness": 1.2,
                "width": 0,
            },
            customdata=np.stack([low, high], -1)[measured],
            hovertemplate=(
                f"layer %{{y}}: %{{x:+.3f}} (95 %: %{{customdata[0]:+.3f}} to %{{customdata[1]:+.3f}})"
                f"<br>{name}<extra></extra>"
            ),
        ),
        row=1,
        col=column,
    )
    figure.update_xaxes(title_text=name, nticks=4, tickangle=0, row=1, col=column)


def _label(figure: go.Figure, column: int, entries: list[tuple[str, str, str]], dark: bool) -> None:
    """Explain a panel's marks above it. A legend would push the panels out of line with the map."""
    words = "  ".join(f'<span style="color:{colour}">{symbol}</span> {name}' for symbol, colour, name in entries)
    axis = "" if column == 1 else str(column)
    figure.add_annotation(
        text=words,
        xref=f"x{axis} domain",
        yref="paper",
        x=0,
        y=1,
        yshift=6,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": palette.ink(dark)},
    )


def _frame_final(figure: go.Figure, count: int, final: float, panels: int) -> None:
    first = count - max(1, round(final * count))
    for column in range(1, panels + 1):
        axis = "" if column == 1 else str(column)
        figure.add_shape(
            type="rect",
            xref=f"x{axis} domain",
            yref=f"y{axis}",
            x0=0,
            x1=1,
            y0=first - 0.5,
            y1=count - 0.5,
            line={"color": palette.FINAL_FRAME, "width": 2},
        )

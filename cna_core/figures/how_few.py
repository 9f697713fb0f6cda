"""How few neurons? The refusal chance over the number of neurons ablated, with controls, and the KL on benign prompts.

A function of what evaluation/size_curves.py holds.
"""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cna_core.evaluation.size_curves import HowFew, SizeCurve, halving_in_words
from cna_core.figures import palette
from cna_core.figures.end_labels import EndLabel, label_ends, pixels_beside
from cna_core.figures.percents import percent, share_axis

MAIN_PIXELS, KL_PIXELS, GAP_PIXELS = 330, 80, 40
TOP_PIXELS, BOTTOM_PIXELS = 66, 52
NAMES = {
    "effect": "effect, first two thirds",
    "effect-all": "effect, all layers",
    "delta": "|δ|",
    "effect-size": "effect size",
    "random": "random, same layers",
    "random-writing": "random, writing as much",
}
_LOOKS: dict[str, dict[str, Any]] = {
    "effect": {"color": palette.STEERED, "width": 2.5},
    "effect-all": {"color": palette.RUN_COLOURS[1], "width": 1.8, "dash": "dash"},
    "delta": {"color": palette.RUN_COLOURS[0], "width": 2.5},
    "effect-size": {"color": palette.RUN_COLOURS[2], "width": 1.8, "dash": "dot"},
    "random": {"color": palette.RANDOM, "width": 1.5},
    "random-writing": {"color": palette.RANDOM, "width": 1.5, "dash": "dash"},
}


def how_few_neurons(found: HowFew, *, dark: bool = False) -> go.Figure:
    """Curves of the mean refusal chance over sizes, bands behind them, and below the KL divergence on benign prompts.

    Bands are 95 % intervals over prompts, for random circuits the range of the draws. Traces' `meta` is the curve's
    key, with "/band" for bands and "/kl" for the lines of the lower panel, which is left out where nothing was
    measured.

    Args:
        found: whole, or as far as it is measured; without prompts an empty frame is drawn.
        dark: for a dark page.
    """
    curves = [curve for curve in found.curves if curve.chances[0]]
    with_kl = [curve for curve in curves if np.isfinite(curve.divergence).any()]
    rows = 2 if with_kl else 1
    pixels = [MAIN_PIXELS, KL_PIXELS][:rows]
    plot_pixels = sum(pixels) + GAP_PIXELS * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=GAP_PIXELS / plot_pixels,
        row_heights=[part / sum(pixels) for part in pixels],
    )
    for curve in sorted(curves, key=lambda curve: not curve.is_control):
        _add_band(figure, curve)
    for curve in sorted(curves, key=lambda curve: not curve.is_control):
        _add_line(figure, found, curve)
    for curve in with_kl:
        _add_kl(figure, curve)
    names = [_name(found, curve) for curve in curves]
    margin = {"l": 60, "r": pixels_beside(names), "t": TOP_PIXELS, "b": BOTTOM_PIXELS}
    title = f"How few neurons? Refusal chance on {len(found.baseline)} prompts not used for finding"
    height = TOP_PIXELS + plot_pixels + BOTTOM_PIXELS
    palette.frame(figure, title, height, dark, showlegend=False, margin=margin)
    _axes(figure, curves, rows)
    if curves:
        _add_baseline(figure, found, dark)
        shown = (0.0, 1.02)
        ends = [
            EndLabel(name, math.log10(curve.sizes[-1]), float(curve.band[-1, 0]), str(_LOOKS[curve.key]["color"]))
            for name, curve in zip(names, curves, strict=True)
        ]
        label_ends(figure, ends, shown, MAIN_PIXELS, dark)
    return figure


def _name(found: HowFew, curve: SizeCurve) -> str:
    name = NAMES.get(curve.key, curve.title)
    return name if curve.is_control else f"{name}: {halving_in_words(found.halving(curve))}"


def _add_band(figure: go.Figure, curve: SizeCurve) -> None:
    band = curve.band
    figure.add_trace(
        go.Scatter(
            meta=f"{curve.key}/band",
            x=np.concatenate([curve.sizes, curve.sizes[::-1]]),
            y=np.concatenate([band[:, 2], band[::-1, 1]]),
            fill="toself",
            fillcolor=palette.translucent(str(_LOOKS[curve.key]["color"]), 0.25 if curve.is_control else 0.13),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )


def _add_line(figure: go.Figure, found: HowFew, curve: SizeCurve) -> None:
    ends = "draws" if curve.is_control else "95 %"
    figure.add_trace(
        go.Scatter(
            name=curve.title,
            meta=curve.key,
            x=np.array(curve.sizes),
            y=curve.band[:, 0],
            mode="lines+markers",
            line=_LOOKS[curve.key],
            marker={"size": 4 if curve.is_control else 6},
            hovertext=[
                f"{curve.title}: {size:,} neurons ablated<br>refusal chance {percent(value)} "
                f"({ends}: {percent(low)} to {percent(high)})<br>unchanged {percent(found.baseline_estimate.value)}"
                for size, (value, low, high) in zip(curve.sizes, curve.band, strict=True)
            ],
            hoverinfo="text",
        ),
        row=1,
        col=1,
    )


def _add_kl(figure: go.Figure, curve: SizeCurve) -> None:
    figure.add_trace(
        go.Scatter(
            name=f"KL, {curve.title}",
            meta=f"{curve.key}/kl",
            x=np.array(curve.sizes),
            y=curve.divergence,
            mode="lines",
            line={**_LOOKS[curve.key], "width": 1},
            hovertext=[
                f"{curve.title}: {size:,} neurons ablated<br>KL on benign prompts {value:.3f} nats"
                for size, value in zip(curve.sizes, curve.divergence, strict=True)
            ],
            hoverinfo="text",
        ),
        row=2,
        col=1,
    )


def _axes(figure: go.Figure, curves: list[SizeCurve], rows: int) -> None:
    largest = max((curve.sizes[-1] for curve in curves), default=1024)
    sizes = [1 << power for power in range(largest.bit_length())]
    ticks = {"tickvals": sizes, "ticktext": [f"{size:,}" for size in sizes]}
    for row in range(1, rows + 1):
        figure.update_xaxes(type="log", range=[-0.05, math.log10(largest) + 0.05], **ticks, row=row, col=1)
    figure.update_xaxes(title_text="neurons ablated", row=rows, col=1)
    figure.update_yaxes(range=[0, 1.02], **share_axis(0, 1, 6), title_text="mean refusal chance", row=1, col=1)
    if rows == 2:
        figure.update_yaxes(rangemode="tozero", nticks=4, title_text="KL, benign", row=2, col=1)


def _add_baseline(figure: go.Figure, found: HowFew, dark: bool) -> None:
    unchanged = found.baseline_estimate.value
    for value, words, dash in ((unchanged, "nothing ablated", "solid"), (unchanged / 2, "half of it", "dot")):
        figure.add_hline(
            y=value,
            line={"color": palette.muted(dark), "width": 1, "dash": dash},
            annotation={"text": f"{words} {percent(value)}", "font": {"color": palette.muted(dark), "size": 11}},
            annotation_position="top left" if dash == "solid" else "bottom left",
            layer="below",
            row=1,
            col=1,
        )

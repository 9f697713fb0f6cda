"""Refusals against quality, or another side effect, for each setting. Pure functions of arrays."""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.figures import palette
from cna_core.figures.percents import logarithmic_axis, share_axis
from cna_core.figures.sweep_curves import Curve, PublishedMark, published_trace

LEGEND_COLUMNS, LEGEND_ROW_PIXELS = 4, 19
_BETTER = {"higher": "{}: higher is better →", "lower": "← lower is better: {}", None: "{}"}


def refusal_against_quality(
    pairs: Sequence[tuple[Curve, Curve]],
    *,
    published: Sequence[PublishedMark] = (),
    quality: type[Measure] = Quality,
    dark: bool = False,
) -> go.Figure:
    """One mark for each setting: its refusal rate against its quality.

    Lower is better; the horizontal axis says in which direction its measure is better.

    Args:
        pairs: for each curve, the refusal rates and the qualities at the same strengths.
        published: the paper's numbers that have both.
        quality: the measure on the horizontal axis.
        dark: whether the page is dark.
    """
    figure = go.Figure()
    for refusal, good in pairs:
        shared, mine, theirs = np.intersect1d(refusal.strengths, good.strengths, return_indices=True)
        look = refusal.look
        figure.add_trace(
            go.Scatter(
                name=palette.plain(refusal.name),
                meta=f"pareto/{refusal.key}",
                x=good.values[theirs],
                y=refusal.values[mine],
                mode="lines+markers+text",
                text=[f"{strength:g}" if _is_round(strength) else "" for strength in shared],
                textposition="top center",
                textfont={"size": 10, "color": palette.words_in(look.colour, dark)},
                line={"color": palette.translucent(look.colour, 0.45), "width": 1.5, "dash": look.dash},
                marker={"color": look.colour, "size": 8, "symbol": look.symbol},
                customdata=shared,
                hovertext=[
                    f"{palette.plain(refusal.name)} at strength {strength:g}: {RefusalRate.say(refused)} refused, "
                    f"{quality.panel_title()} {quality.say(value)}"
                    for strength, refused, value in zip(shared, refusal.values[mine], good.values[theirs], strict=True)
                ],
                hoverinfo="text",
                error_y=_whiskers(refusal, mine, look.colour),
            )
        )
    for mark in published:
        if mark.quality is not None:
            figure.add_trace(published_trace(mark, mark.quality))
    rows = -(-len(pairs) // LEGEND_COLUMNS)
    top = 38 + LEGEND_ROW_PIXELS * max(1, rows)
    margin = {"l": 56, "r": 16, "t": top, "b": 48}
    palette.frame(figure, "Refusals against quality, one mark for each strength", 374 + top, dark, margin=margin)
    figure.update_yaxes(title_text="refused", range=[-0.03, 1.03], **share_axis(-0.03, 1.03, 6))
    figure.update_xaxes(title_text=_BETTER[quality.better].format(quality.panel_title()))
    reached = [value for _, good in pairs for value in good.values.tolist() if value > 0]
    if quality.axis.logarithmic and reached:
        figure.update_xaxes(**logarithmic_axis(min(reached), max(reached), 8))
    return figure


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


def _is_round(strength: float) -> bool:
    return math.isclose(strength, round(strength), abs_tol=1e-9)

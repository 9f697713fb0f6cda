"""The circuit at work, token by token: a map of layers by tokens for each answer, on shared axes.

Pure functions, numpy in, figure out. They know nothing of models; token texts are shown as text, whatever they hold.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette
from cna_core.figures.lanes import shown_token

LAYER_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT, LINE_HEIGHT = 7, 84, 190, 64
"""Pixels of a layer, of a map, and of the line chart under the maps."""
GAP = 26
"""Pixels between two maps, for the name of the lower one."""
CLIPPED = 97.0
"""Colours end at this percentile of the activities' sizes."""
LEAST_CHANCE = 1e-4
"""The left end of the probability axis; smaller ones are drawn there."""


@dataclass(frozen=True)
class LaneActivity:
    """One answer, as the map draws it.

    Args:
        name: what the lane is called.
        colour: its colour, "#RRGGBB".
        tokens: its tokens as text.
        activity: (tokens, layers of the circuit), NaN where it is not known.
        divergence: (tokens,) in nats, NaN where it was not measured; None for a lane that has none.
        parted_at: the first token that differs from the baseline's, marked if given.
    """

    name: str
    colour: str
    tokens: Sequence[str]
    activity: NDArray[np.floating]
    divergence: NDArray[np.floating] | None = None
    parted_at: int | None = None


def token_map(
    lanes: Sequence[LaneActivity],
    layers: Sequence[int],
    layer_count: int,
    *,
    title: str = "The circuit's activity when each token was chosen",
    token_axis: str = "token of the answer",
    picked: tuple[int, int] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Layers by tokens, one map under the other for each lane, and divergence as lines under them.

    Every trace's `meta` is "map", "divergence", "picked", or "tokens": the last are invisible marks, one a cell, whose
    customdata is (lane, token, activity), for clicks. Pointing at a token marks the same place in every map.

    Args:
        lanes: the baseline first.
        layers: the circuit's layers, ascending: the columns of every lane's activity.
        layer_count: how many layers the model has.
        title: what is seen.
        token_axis: what the tokens are of.
        picked: (lane, token) of the token that is looked at, outlined if given.
        dark: whether the page is dark.
    """
    measured = [lane for lane in lanes if lane.divergence is not None and np.isfinite(lane.divergence).any()]
    first_layer = min(layers, default=0)
    height = int(np.clip(LAYER_HEIGHT * (layer_count - first_layer), LEAST_HEIGHT, MOST_HEIGHT))
    heights = [height] * len(lanes) + ([LINE_HEIGHT] if measured else [])
    domains = _domains(heights)
    figure = go.Figure()
    known = [np.abs(lane.activity[np.isfinite(lane.activity)]) for lane in lanes]
    sizes = np.concatenate([*known, np.zeros(1)])
    limit = max(float(np.percentile(sizes, CLIPPED)), 1e-6)
    for number, lane in enumerate(lanes):
        axis = _axis(number)
        _draw_map(figure, axis, lane, layers, layer_count, limit, number == 0, dark)
        _draw_tokens(figure, axis, lane, layers, number)
        if lane.parted_at is not None and lane.parted_at < len(lane.tokens):
            _draw_parting(figure, axis, lane.parted_at, dark)
        if picked is not None and picked[0] == number:
            _outline(figure, axis, picked[1], first_layer, layer_count, dark)
    for lane in measured:
        _draw_divergence(figure, _axis(len(lanes)), lane)
    margin = {"l": 52, "r": 76, "t": 62, "b": 40}
    whole = sum(heights) + GAP * (len(heights) - 1)
    palette.frame(figure, title, whole + margin["t"] + margin["b"], dark, margin=margin, showlegend=False)
    figure.update_layout(hovermode="closest", clickmode="event+select", dragmode=False)
    # One token axis for all maps: what marks a token in one of them reaches across the others.
    figure.update_layout(
        xaxis={
            "anchor": _axis(len(heights) - 1),
            "range": [0.5, max(max((len(lane.tokens) for lane in lanes), default=1), 1) + 0.5],
            "title": {"text": token_axis},
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "hovered data",
            "spikethickness": 1,
            "spikedash": "solid",
            "spikecolor": palette.muted(dark),
            "fixedrange": True,
            "showgrid": False,
        }
    )
    for number, domain in enumerate(domains):
        look: dict[str, Any] = {"domain": domain, "anchor": "x", "fixedrange": True, "nticks": 5, "showgrid": False}
        if number < len(lanes):
            look |= {"title": {"text": "layer"}, "range": [first_layer - 0.5, layer_count - 0.5]}
            _name(figure, lanes[number], domain[1], dark)
        else:
            top = max(float(np.nanmax(lane.divergence)) for lane in measured if lane.divergence is not None)
            look |= {"title": {"text": "KL, nats"}, "range": [0, max(top, 0.1) * 1.08], "nticks": 3}
        figure.update_layout({_axis(number).replace("y", "yaxis"): look})
    return figure


def _axis(number: int) -> str:
    return "y" if number == 0 else f"y{number + 1}"


def _domains(heights: Sequence[int]) -> list[tuple[float, float]]:
    """The shares of the chart's height that charts of these heights take, the first on top."""
    whole = sum(heights) + GAP * (len(heights) - 1)
    domains, top = [], 1.0
    for height in heights:
        domains.append((max(0.0, top - height / whole), top))
        top -= (height + GAP) / whole
    return domains


def _name(figure: go.Figure, lane: LaneActivity, top: float, dark: bool) -> None:
    figure.add_annotation(
        text=f"<b>{html.escape(lane.name)}</b>",
        x=0,
        xref="paper",
        y=top,
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"color": palette.words_in(lane.colour, dark), "size": 12},
    )


def _draw_map(
    figure: go.Figure,
    axis: str,
    lane: LaneActivity,
    layers: Sequence[int],
    layer_count: int,
    limit: float,
    with_scale: bool,
    dark: bool,
) -> None:
    values = np.full((layer_count, len(lane.tokens)), np.nan, dtype=np.float32)
    values[list(layers)] = np.asarray(lane.activity, dtype=np.float32).T
    figure.add_trace(
        go.Heatmap(
            x=np.arange(1, len(lane.tokens) + 1),
            y=np.arange(layer_count),
            z=values,
            zmin=-limit,
            zmax=limit,
            colorscale=palette.diverging(dark),
            showscale=with_scale,
            colorbar={
                "title": {"text": "activity", "side": "top"},
                "thickness": 10,
                "len": 0.5,
                "y": 1,
                "yanchor": "top",
            },
            meta="map",
            hoverinfo="skip",
            yaxis=axis,
        )
    )


def _draw_tokens(figure: go.Figure, axis: str, lane: LaneActivity, layers: Sequence[int], number: int) -> None:
    """An invisible mark in each cell: a heatmap's own cells cannot be clicked."""
    places, rows = (part.ravel() for part in np.meshgrid(np.arange(len(lane.tokens)), list(layers), indexing="ij"))
    names = np.array([shown_token(token) for token in lane.tokens], dtype=object)
    activity = np.asarray(lane.activity, dtype=np.float32).ravel()
    figure.add_trace(
        go.Scattergl(
            x=(places + 1).astype(np.int32),
            y=rows.astype(np.int32),
            customdata=np.stack([np.full(len(places), number), places, activity], -1).astype(np.float32),
            text=names[places],
            mode="markers",
            marker={"size": 8, "opacity": 0, "symbol": "square"},
            selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
            hovertemplate="token %{x} “%{text}”<br>layer %{y}: %{customdata[2]:.3g}<extra>"
            + html.escape(lane.name)
            + "</extra>",
            meta="tokens",
            yaxis=axis,
        )
    )


def _draw_parting(figure: go.Figure, axis: str, place: int, dark: bool) -> None:
    figure.add_shape(
        type="line",
        x0=place + 0.5,
        x1=place + 0.5,
        xref="x",
        y0=0,
        y1=1,
        yref=f"{axis} domain",
        line={"color": palette.ink(dark), "width": 1.5, "dash": "dot"},
    )


def _outline(figure: go.Figure, axis: str, place: int, first_layer: int, layer_count: int, dark: bool) -> None:
    left, right, bottom, top = place + 0.5, place + 1.5, first_layer - 0.5, layer_count - 0.5
    figure.add_trace(
        go.Scatter(
            x=np.array([left, right, right, left, left]),
            y=np.array([bottom, bottom, top, top, bottom]),
            mode="lines",
            line={"color": palette.ink(dark), "width": 2},
            hoverinfo="skip",
            cliponaxis=False,
            meta="picked",
            yaxis=axis,
        )
    )


def _draw_divergence(figure: go.Figure, axis: str, lane: LaneActivity) -> None:
    assert lane.divergence is not None
    figure.add_trace(
        go.Scatter(
            x=np.arange(1, len(lane.tokens) + 1),
            y=np.asarray(lane.divergence, dtype=np.float64),
            mode="lines",
            line={"color": lane.colour, "width": 1.5, "shape": "hvh"},
            fill="tozeroy",
            fillcolor=palette.translucent(lane.colour, 0.15),
            meta="divergence",
            hovertemplate="token %{x}: KL %{y:.3f} nats<extra>" + html.escape(lane.name) + "</extra>",
            yaxis=axis,
        )
    )


def alternatives_chart(
    tokens: Sequence[str],
    baseline: NDArray[np.floating],
    steered: NDArray[np.floating],
    not_here: NDArray[np.floating],
    chosen: int,
    *,
    colour: str = palette.STEERED,
    dark: bool = False,
) -> go.Figure:
    """The likeliest tokens at one place, each a row with its probability for three readers.

    Traces' `meta` is "baseline", "steered" and "not-here".

    Args:
        tokens: as text, the likeliest first.
        baseline, steered, not_here: (tokens,) probabilities, 0 to 1: see `decoding.inspection.Alternative`.
        chosen: which of them was chosen; its name is bold.
        colour: of the steered method.
        dark: whether the page is dark.
    """
    places = np.arange(len(tokens))
    names = [shown_token(token) for token in tokens]
    names = [f"<b>{name} ◂</b>" if place == chosen else name for place, name in enumerate(names)]
    figure = go.Figure()
    readers = np.clip(np.stack([baseline, steered, not_here]), LEAST_CHANCE, 1.0)
    low, high = readers.min(0), readers.max(0)
    spans = np.stack([low, high, np.full(len(tokens), np.nan)], -1).ravel()
    figure.add_trace(
        go.Scatter(
            x=spans,
            y=np.repeat(places, 3),
            mode="lines",
            line={"color": palette.grid(dark), "width": 4},
            hoverinfo="skip",
            showlegend=False,
            meta="span",
        )
    )
    looks = (
        ("baseline", baseline, palette.BASELINE, "circle", "baseline"),
        ("not-here", not_here, colour, "circle-open", "not at this token"),
        ("steered", steered, colour, "circle", "steered"),
    )
    for meta, chances, tint, symbol, name in looks:
        figure.add_trace(
            go.Scatter(
                x=np.clip(np.asarray(chances, dtype=np.float64), LEAST_CHANCE, 1.0),
                customdata=np.asarray(chances, dtype=np.float64),
                y=places,
                mode="markers",
                marker={"color": tint, "symbol": symbol, "size": 11, "line": {"width": 2, "color": tint}},
                name=name,
                meta=meta,
                text=[shown_token(token) for token in tokens],
                hovertemplate="“%{text}” %{customdata:.2%}<extra>" + name + "</extra>",
                cliponaxis=False,
            )
        )
    palette.frame(
        figure,
        "Probability of each token at this place",
        108 + 24 * len(tokens),
        dark,
        margin={"l": 110, "r": 16, "t": 40, "b": 68},
    )
    figure.update_layout(legend={"y": -44 / (24 * len(tokens)), "yanchor": "top"}, dragmode=False)
    figure.update_xaxes(
        type="log",
        range=[np.log10(LEAST_CHANCE) - 0.1, 0.1],
        tickvals=[1e-4, 1e-3, 1e-2, 1e-1, 1],
        ticktext=["≤ 0.01 %", "0.1 %", "1 %", "10 %", "100 %"],
        fixedrange=True,
    )
    figure.update_yaxes(
        tickvals=places, ticktext=names, range=[len(tokens) - 0.5, -0.5], fixedrange=True, showgrid=False, ticks=""
    )
    return figure

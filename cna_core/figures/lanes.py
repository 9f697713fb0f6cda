"""Charts of the Chat page: the gate meter (chance of a refusal by strength), and an answer token by token.

Pure functions from numpy arrays to figures. They do not know models. Token texts are always escaped.
"""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cna_core.figures import palette
from cna_core.figures.percents import percent, share_axis
from cna_core.shown import VISIBLE

STRENGTH_MARKS = {-1.0: "amplified", 0.0: "baseline", 1.0: "ablated", 2.0: "inverted"}
"""Names of strengths; the page writes them between its slider and the meter."""

METER_MARGIN = 6
"""Pixels beside the meter's axis, the same as beside a Streamlit slider's track, so that both axes line up."""


STRIP_HEIGHT, LINE_HEIGHT, STRIP_GAP = 20, 80, 6
"""Pixels of the activity strip, of the divergence line, and between them."""


def gate_meter(
    strengths: NDArray[np.floating],
    chances: NDArray[np.floating],
    at: float,
    *,
    height: int = 118,
    dark: bool = False,
) -> go.Figure:
    """The chance that the answer opens as a refusal, by strength, with a dot at the slider's strength.

    The strength axis has numbers without names, because the slider above it has the names.

    Args:
        strengths: (n,) ascending.
        chances: (n,), 0 to 1.
        at: the slider's strength.
        height: in pixels.
        dark: whether the page is dark.
    """
    here = float(np.interp(at, strengths, chances))
    colour = palette.BASELINE if at == 0 else palette.STEERED
    figure = go.Figure()
    for mark in STRENGTH_MARKS:
        figure.add_vline(x=mark, line={"color": palette.grid(dark), "width": 1}, layer="below")
    figure.add_trace(
        go.Scatter(
            x=np.asarray(strengths, dtype=np.float64),
            y=np.asarray(chances, dtype=np.float64),
            mode="lines",
            line={"color": palette.ink(dark), "width": 2, "shape": "spline", "smoothing": 0.5},
            meta="meter",
            hovertext=[
                f"strength {strength:.2f}: {percent(chance)}"
                for strength, chance in zip(strengths, chances, strict=True)
            ],
            hoverinfo="text",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=np.array([at]),
            y=np.array([here]),
            mode="markers",
            marker={"size": 13, "color": colour, "line": {"color": palette.background(dark), "width": 2}},
            cliponaxis=False,
            meta="slider",
            hovertext=[f"slider at strength {at:.2f}: {percent(here)}"],
            hoverinfo="text",
        )
    )
    figure.add_annotation(
        x=at,
        y=here,
        text=f"<b>{percent(here)}</b>",
        showarrow=False,
        xshift=-24 if at > 1.5 else 24,
        yshift=12 if here < 0.8 else -12,
        font={"color": palette.ink(dark), "size": 13},
    )
    palette.frame(
        figure,
        "Chance that the answer opens as a refusal",
        height,
        dark,
        margin={"l": METER_MARGIN, "r": METER_MARGIN, "t": 24, "b": 18},
        showlegend=False,
    )
    figure.update_layout(title={"font": {"size": 13}, "pad": {"t": 4, "l": METER_MARGIN}})
    figure.update_xaxes(
        range=[strengths[0], strengths[-1]], fixedrange=True, tickvals=list(STRENGTH_MARKS), ticks="", showgrid=False
    )
    figure.update_xaxes(ticktext=[f"{mark:g}".replace("-", "−") for mark in STRENGTH_MARKS], ticklabelstandoff=-2)
    figure.update_yaxes(range=[-0.04, 1.04], fixedrange=True, **share_axis(-0.04, 1.04, 3))
    figure.update_yaxes(ticklabelposition="inside top", ticks="", showline=False)
    return figure


def token_trace(
    tokens: Sequence[str],
    activity: NDArray[np.floating],
    divergence: NDArray[np.floating] | None,
    *,
    activity_limit: float,
    divergence_limit: float,
    shown_tokens: int,
    parted_at: int | None = None,
    colour: str = palette.STEERED,
    dark: bool = False,
) -> go.Figure:
    """One answer token by token: the circuit's activity as a coloured strip, and the divergence as a line below it.

    The traces' `meta` is "activity" or "divergence". The caller gives the limits, so that lanes can be compared.

    Args:
        tokens: the answer's tokens as text.
        activity: (tokens,) the circuit's signed mean activation (SteeringPlan).
        divergence: (tokens,) KL divergence from the unsteered model in nats; None (for the baseline) draws no line.
        activity_limit: the strip's colour scale runs from minus this to this.
        divergence_limit: the line's axis runs from 0 to this.
        shown_tokens: the length of the token axis.
        parted_at: the first token that differs from the baseline's, marked if given.
        colour: the line's colour.
        dark: whether the page is dark.
    """
    heights = [STRIP_HEIGHT, LINE_HEIGHT] if divergence is not None else [STRIP_HEIGHT]
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=STRIP_GAP / sum(heights)
    )
    numbers = np.arange(1, len(tokens) + 1)
    names = np.array([shown_token(token) for token in tokens], dtype=object)
    limit = max(activity_limit, 1e-6)
    figure.add_trace(
        go.Heatmap(
            x=numbers,
            y=np.array([0]),
            z=np.asarray(activity, dtype=np.float32)[None, :],
            customdata=names[None, :],
            zmin=-limit,
            zmax=limit,
            colorscale=palette.diverging(dark),
            showscale=False,
            meta="activity",
            hovertemplate="token %{x} “%{customdata}”<br>circuit activity %{z:.3f}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    if divergence is not None:
        figure.add_trace(
            go.Scatter(
                x=numbers,
                y=np.asarray(divergence, dtype=np.float64),
                customdata=names,
                mode="lines",
                line={"color": colour, "width": 1.5, "shape": "hvh"},
                fill="tozeroy",
                fillcolor=palette.translucent(colour, 0.15),
                meta="divergence",
                hovertemplate="token %{x} “%{customdata}”<br>KL %{y:.3f} nats<extra></extra>",
            ),
            row=2,
            col=1,
        )
        limit = max(divergence_limit, 0.1) * 1.05
        figure.update_xaxes(showticklabels=False, ticks="", row=1, col=1)
        figure.update_yaxes(title_text="KL, nats", range=[0, limit], nticks=3, fixedrange=True, row=2, col=1)
    if parted_at is not None:
        figure.add_vline(x=parted_at + 1, line={"color": palette.ink(dark), "width": 1, "dash": "dot"})
    margin = {"l": 46, "r": 8, "t": 32, "b": 38}
    palette.frame(
        figure,
        "Circuit activity, token by token" if divergence is None else "Activity and divergence, token by token",
        int(sum(heights)) + margin["t"] + margin["b"],
        dark,
        margin=margin,
        showlegend=False,
    )
    figure.update_xaxes(range=[0.5, max(shown_tokens, 1) + 0.5], fixedrange=True)
    figure.update_xaxes(title_text="token", row=len(heights), col=1)
    figure.update_yaxes(showticklabels=False, ticks="", showgrid=False, fixedrange=True, row=1, col=1)
    return figure


def shown_token(token: str) -> str:
    """A token as hover text: markup is escaped, line breaks and other control characters become visible symbols."""
    return html.escape(visible_text(token), quote=False)


def visible_text(token: str) -> str:
    """A token as plain text, for places where nothing is markup; otherwise as `shown_token`."""
    return token.translate(VISIBLE | {0x09: "\u2409", 0x0A: "⏎"}) or "·"

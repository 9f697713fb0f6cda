"""Circuits side by side: how many of their neurons lie in each layer. Pure functions of arrays."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette

COLOURS = (palette.STEERED, palette.BASELINE, palette.NEGATIVE, palette.POSITIVE)


def circuits_by_depth(
    names: Sequence[str], layer_counts: Sequence[NDArray[np.integer]], dark: bool = False
) -> go.Figure:
    """Each circuit's share of neurons in each layer, over depth, so that models of different depth can be compared.

    Traces' `meta` is "circuit/0", "circuit/1" and so on.

    Args:
        names: what to call each circuit.
        layer_counts: for each, (layers,) neurons.
        dark: for a dark page.
    """
    figure = go.Figure()
    for place, (name, counts) in enumerate(zip(names, layer_counts, strict=True)):
        layers = len(counts)
        colour = COLOURS[place % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                name=name,
                meta=f"circuit/{place}",
                x=(np.arange(layers) + 0.5) / layers,
                y=np.asarray(counts) / max(1, np.sum(counts)),
                mode="lines+markers",
                line={"color": colour, "width": 2, "shape": "hvh"},
                marker={"color": colour, "size": 6},
                customdata=np.stack([np.arange(layers), np.asarray(counts)], -1),
                hovertemplate=(
                    f"{name}, layer %{{customdata[0]}}: %{{customdata[1]}} neurons (%{{y:.0%}})<extra></extra>"
                ),
            )
        )
    palette.frame(figure, "Where the circuits lie, by depth", 360, dark)
    figure.update_xaxes(title_text="depth: 0 first layer, 1 last", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="share of the circuit", tickformat=".0%", rangemode="tozero")
    frame = {"color": palette.FINAL_FRAME, "width": 2}
    figure.add_shape(type="rect", x0=0.9, x1=1, y0=0, y1=1, yref="paper", line=frame)
    return figure

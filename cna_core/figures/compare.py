"""Circuits side by side: the share of their neurons in each layer. Pure functions of arrays."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette
from cna_core.figures.percents import percent, share_axis


def circuits_by_depth(
    names: Sequence[str], layer_counts: Sequence[NDArray[np.integer]], dark: bool = False
) -> go.Figure:
    """Each circuit's share of neurons by relative depth, so that models with different numbers of layers compare.

    The circuit of a run has the colour that the run's curves have.

    The traces' `meta` is "circuit/0", "circuit/1" and so on.

    Args:
        names: the circuits' names.
        layer_counts: for each circuit, (layers,) number of neurons.
        dark: whether the page is dark.
    """
    figure = go.Figure()
    highest = 0.0
    for place, (name, counts) in enumerate(zip(names, layer_counts, strict=True)):
        layers, shares = len(counts), np.asarray(counts) / max(1, np.sum(counts))
        highest = max(highest, float(shares.max(initial=0)))
        colour = palette.RUN_COLOURS[place % len(palette.RUN_COLOURS)]
        figure.add_trace(
            go.Scatter(
                name=palette.plain(name),
                meta=f"circuit/{place}",
                x=(np.arange(layers) + 0.5) / layers,
                y=shares,
                mode="lines+markers",
                line={"color": colour, "width": 2, "shape": "hvh"},
                marker={"color": colour, "size": 6},
                hovertext=[
                    f"{palette.plain(name)}, layer {layer}: {count} neurons ({percent(share)})"
                    for layer, (count, share) in enumerate(zip(counts, shares, strict=True))
                ],
                hoverinfo="text",
            )
        )
    palette.frame(figure, "Where the circuits' neurons sit, by depth", 360, dark)
    figure.update_xaxes(title_text="depth: 0 is the first layer, 1 the last", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="share of the circuit", rangemode="tozero", **share_axis(0, highest, 6))
    frame = {"color": palette.FINAL_FRAME, "width": 2}
    figure.add_shape(type="rect", x0=0.9, x1=1, y0=0, y1=1, yref="paper", line=frame)
    return figure

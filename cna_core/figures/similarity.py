"""Which neurons write alike: the cosines of their output directions as a map, ordered so that groups are blocks."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.circuits.groups import Groups
from cna_core.figures import palette

LEAST_LIMIT = 0.2
OUTLINED = 3
"""Groups of at least so many neurons are outlined."""


def similarity_map(
    similarity: NDArray[np.floating],
    layers: NDArray[np.integer],
    neurons: NDArray[np.integer],
    groups: Groups,
    *,
    dark: bool = False,
) -> go.Figure:
    """Neuron × neuron cosines in the groups' order; groups of three and more are outlined.

    The diagonal is left blank: a neuron writes the same as itself. The trace's `meta` is "similarity".

    Args:
        similarity: (n, n) cosines.
        layers, neurons: (n,) what each row is.
        groups: the order, and where groups are.
        dark: whether the page is dark.
    """
    order = groups.order
    shown = np.array(similarity, dtype=np.float32)[np.ix_(order, order)]
    np.fill_diagonal(shown, np.nan)
    known = np.abs(shown[np.isfinite(shown)])
    limit = min(1.0, max(LEAST_LIMIT, float(np.percentile(known, 99.5)) if len(known) else 0.0))
    names = np.array([f"layer {layers[place]}, neuron {neurons[place]}" for place in order], dtype=object)
    figure = go.Figure(
        go.Heatmap(
            meta="similarity",
            x=names,
            y=names,
            z=shown,
            zmin=-limit,
            zmax=limit,
            colorscale=palette.diverging(dark),
            colorbar={
                "title": {"text": "cosine", "font": {"color": palette.muted(dark)}},
                "thickness": 10,
                "len": 0.6,
                "tickfont": {"color": palette.muted(dark)},
                "outlinewidth": 0,
            },
            hovertemplate="%{y}<br>%{x}<br>cosine %{z:.2f}<extra></extra>",
        )
    )
    for first, last in groups.blocks(OUTLINED):
        corners = {"x0": first - 0.5, "x1": last + 0.5, "y0": first - 0.5, "y1": last + 0.5}
        figure.add_shape(type="rect", **corners, line={"color": palette.ink(dark), "width": 1.2})
    palette.frame(figure, _title(groups), 620, dark, margin={"l": 24, "r": 16, "t": 44, "b": 34})
    figure.update_xaxes(
        showticklabels=False,
        showgrid=False,
        ticks="",
        title_text="the circuit's neurons, those that write alike together",
    )
    figure.update_yaxes(showticklabels=False, showgrid=False, ticks="")
    return figure


def _title(groups: Groups) -> str:
    sizes = sorted((last - first + 1 for first, last in groups.blocks(OUTLINED)), reverse=True)
    if not sizes:
        return "No three neurons write alike"
    if len(sizes) == 1:
        return f"One group of {sizes[0]} neurons that write alike"
    return f"{len(sizes)} groups of neurons that write alike, the largest of {sizes[0]}"

"""Where the marks of a circuit would cover each other on the map: the density of its neurons instead.

Pure functions of positions. A layer's density is a small histogram that stands on the lower edge of the layer's row.
"""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette

MAP_PIXELS = 800
"""About the width of the map on the page."""
COVERED = 0.55
"""Marks that would cover more than this share of a row are drawn as density."""
BINS = 80
"""Bins in a row: about ten pixels each."""
_FLOOR, _TALLEST = -0.47, 0.9


def crowded_layers(layers: NDArray[np.integer], mark_pixels: float) -> NDArray[np.int64]:
    """The layers whose marks would cover too much of their row.

    Args:
        layers: (n,) the layer of every mark that is shown.
        mark_pixels: the diameter of a mark.
    """
    names, counts = np.unique(layers, return_counts=True)
    return names[counts * mark_pixels > COVERED * MAP_PIXELS].astype(np.int64)


def density_bars(
    x: NDArray[np.integer], layers: NDArray[np.integer], first: int, end: int, dark: bool = False
) -> go.Bar:
    """The density of marks in each of their layers, all on one scale: the tallest bar fills a row.

    The trace's `meta` is "density", its customdata (layer, count) of each bar.

    Args:
        x: (n,) the marks' positions on the horizontal axis.
        layers: (n,) their layers.
        first, end: the first position that the map shows, and the first beyond it.
        dark: whether the page is dark.
    """
    bins = max(1, min(BINS, end - first))
    edges = np.linspace(first, end, bins + 1) - 0.5
    shown = np.unique(layers)
    counts = np.stack([np.histogram(x[layers == layer], edges)[0] for layer in shown])
    rows, columns = np.nonzero(counts)
    heights = counts[rows, columns]
    return go.Bar(
        name="dense",
        meta="density",
        x=((edges[:-1] + edges[1:]) / 2)[columns].astype(np.float32),
        y=(_TALLEST * heights / heights.max(initial=1)).astype(np.float32),
        base=(shown[rows] + _FLOOR).astype(np.float32),
        width=float(edges[1] - edges[0]),
        customdata=np.stack([shown[rows], heights], -1).astype(np.int32),
        marker={"color": palette.translucent(palette.ink(dark), 0.78), "line": {"width": 0}},
        unselected={"marker": {"opacity": 1}},
        hoverinfo="skip",  # the cells below say which neuron they are
    )

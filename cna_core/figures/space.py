"""Two scatter charts: the strongest neurons in 3D, and the prompts by the circuit's activations (prompt space).

Pure functions of arrays.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.circuits.attribution import top_neurons
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.projection import PromptProjection
from cna_core.figures import palette
from cna_core.figures.heatmap import robust_limit
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.neurons import wrapped_prompt
from cna_core.figures.percents import percent

STRONGEST = 4000
"""The number of neurons drawn besides the circuit; more would hide each other."""


def neuron_space(
    statistics: NeuronStatistics,
    circuit: Circuit | None = None,
    *,
    strongest: int = STRONGEST,
    final: float = 0.10,
    dark: bool = False,
) -> go.Figure:
    """Layer, neuron and δ in 3D: the neurons with the largest |δ| as points, the circuit's as larger points.

    The traces' `meta` is "strongest", "circuit" or "final"; the points' customdata is (layer, neuron).

    Args:
        statistics: statistics of every neuron.
        circuit: drawn as larger points.
        strongest: the number of other neurons drawn.
        final: the share of the layers whose first layer is marked by a gold line.
        dark: whether the page is dark.
    """
    layout = statistics.layout
    chosen = top_neurons(np.abs(statistics.delta), min(strongest, layout.total))
    if circuit is not None:
        chosen = np.setdiff1d(chosen, circuit.flat)
    limit = robust_limit(statistics.delta[chosen]) if len(chosen) else 1.0
    figure = go.Figure()
    figure.add_trace(_points("strongest", statistics, chosen, 2.2, limit, dark))
    if circuit is not None:
        figure.add_trace(_points("circuit", statistics, circuit.flat, 5, limit, dark))
    widest, first = max(layout.widths) - 1, layout.first_layer_of_final(final) - 0.5
    figure.add_trace(
        go.Scatter3d(
            meta="final",
            x=[0, widest],
            y=[first, first],
            z=[0, 0],
            mode="lines",
            line={"color": palette.FINAL_FRAME, "width": 5},
            hoverinfo="skip",
        )
    )
    axis = {
        "backgroundcolor": palette.background(dark),
        "gridcolor": palette.grid(dark),
        "zerolinecolor": palette.muted(dark),
        "color": palette.muted(dark),
    }
    palette.frame(
        figure,
        f"The {len(chosen):,} strongest neurons" + ("" if circuit is None else f" and the circuit ({len(circuit):,})"),
        560,
        dark,
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        showlegend=False,
        dragmode="turntable",
        scene={
            "xaxis": {**axis, "title": {"text": "neuron"}, "range": [0, widest], "nticks": 5},
            "yaxis": {**axis, "title": {"text": "layer"}, "range": [-0.5, layout.layers - 0.5], "nticks": 7},
            "zaxis": {**axis, "title": {"text": "δ"}, "nticks": 6},
            "aspectmode": "manual",
            "aspectratio": {"x": 1.6, "y": 1.2, "z": 0.9},
            "camera": {"eye": {"x": 1.4, "y": -1.75, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.3}},
        },
    )
    return figure


def prompt_space(
    projection: PromptProjection,
    is_positive: NDArray[np.bool_],
    prompts: Sequence[str],
    *,
    held_out: Interval | None = None,
    dark: bool = False,
) -> go.Figure:
    """The prompts on the first two principal components of the circuit's activations, coloured by set.

    The traces' `meta` is "positive" or "negative".

    Args:
        projection: points, explained variance and AUC.
        is_positive: (prompts,) bool.
        prompts: shown on hover, escaped.
        held_out: the AUC on prompts that were used neither for the circuit nor for the axis, for the title.
        dark: whether the page is dark.
    """
    figure = go.Figure()
    texts = np.array([wrapped_prompt(prompt) for prompt in prompts], dtype=object)
    for name, colour, chosen in (
        ("negative", palette.NEGATIVE, ~is_positive),
        ("positive", palette.POSITIVE, is_positive),
    ):
        figure.add_trace(
            go.Scatter(
                name=f"{name} prompts",
                meta=name,
                x=projection.points[chosen, 0],
                y=projection.points[chosen, 1],
                mode="markers",
                marker={"size": 8, "color": colour, "opacity": 0.8, "line": {"width": 0.5, "color": palette.ink(dark)}},
                customdata=texts[chosen],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    palette.frame(
        figure,
        f"Prompt space · AUC {projection.auc:.2f}{_held_out(held_out)}",
        460,
        dark,
        margin={"t": 72},
    )
    first, second = projection.explained
    figure.update_xaxes(title_text=f"first principal component ({percent(first)} of the variance)", zeroline=True)
    figure.update_yaxes(title_text=f"second ({percent(second)})", zeroline=True)
    figure.update_xaxes(zerolinecolor=palette.grid(dark))
    figure.update_yaxes(zerolinecolor=palette.grid(dark))
    return figure


def _held_out(auc: Interval | None) -> str:
    return "" if auc is None else f" (held out {auc.mean:.2f}, {auc.low:.2f}–{auc.high:.2f})"


def _points(
    meta: str, statistics: NeuronStatistics, flat: NDArray[np.integer], size: float, limit: float, dark: bool
) -> go.Scatter3d:
    layers, neurons = statistics.layout.locate(flat)
    delta = statistics.delta[flat]
    outline = {"width": 1, "color": palette.ink(dark)} if meta == "circuit" else {"width": 0}
    return go.Scatter3d(
        meta=meta,
        x=neurons.astype(np.int32),
        y=layers.astype(np.int32),
        z=delta,
        mode="markers",
        marker={
            "size": size,
            "color": delta,
            "colorscale": palette.diverging(dark),
            "cmin": -limit,
            "cmax": limit,
            "line": outline,
            "opacity": 1 if meta == "circuit" else 0.7,
        },
        customdata=np.stack([layers, neurons], -1).astype(np.int32),
        hovertemplate="layer %{y}, neuron %{x}<br>δ %{z:.3g}<extra>" + meta + "</extra>",
    )

"""The causal profile of a circuit: the effect of ablating each layer's neurons. Pure functions of arrays."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette
from cna_core.figures.percents import points, share_axis


def causal_profile(
    layers: NDArray[np.integer],
    alone: NDArray[np.floating],
    others: NDArray[np.floating] | None = None,
    random_band: NDArray[np.floating] | None = None,
    *,
    whole: tuple[float, float, float] | None = None,
    model_layers: int | None = None,
    final: float = 0.10,
    dark: bool = False,
) -> go.Figure:
    """The change in the chance of a refusal when each layer's circuit neurons are ablated alone.

    The traces' `meta` is "alone", "others", "random-band" or "random".

    Args:
        layers: (l,) layers that hold neurons of the circuit.
        alone, others, random_band: (l, 3) mean change and the ends of its interval, when ablating only this layer's
            neurons, all but this layer's, and as many random neurons of this layer.
        whole: the whole circuit's change and the ends of its interval, drawn as a line.
        model_layers: the number of layers of the model; None draws up to the last layer given.
        final: the share of the layers that is framed.
        dark: whether the page is dark.
    """
    layers, alone = np.asarray(layers), np.asarray(alone, dtype=np.float64)
    count = model_layers or int(layers.max()) + 1
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": palette.muted(dark), "width": 1})
    if random_band is not None and len(random_band):
        _add_random_band(figure, layers, np.asarray(random_band, dtype=np.float64))
    if others is not None:
        marks = np.asarray(others, dtype=np.float64)
        _add_changes(figure, "all but this layer", "others", layers, marks, "circle-open", dark)
    _add_changes(figure, "this layer alone", "alone", layers, alone, "circle", dark)
    if whole is not None:
        figure.add_hline(
            y=whole[0],
            line={"color": palette.STEERED, "width": 1, "dash": "dash"},
            annotation={"text": f"whole circuit {points(whole[0])}", "font": {"color": palette.STEERED, "size": 11}},
            annotation_position="top left",
        )
    palette.frame(figure, "Effect of each layer: change in the chance of a refusal when ablated", 380, dark)
    figure.update_xaxes(title_text="layer", range=[-0.7, count - 0.3], dtick=2 if count <= 40 else 5)
    figure.update_layout(margin={"l": 72})
    figure.update_yaxes(title_text="change in the chance of a refusal", **_axis(alone, others, random_band, whole))
    first = count - max(1, round(final * count))
    frame = {"x0": first - 0.5, "x1": count - 0.5, "y0": 0, "y1": 1, "yref": "paper"}
    figure.add_shape(type="rect", **frame, line={"color": palette.FINAL_FRAME, "width": 2})
    return figure


def _axis(*drawn: object) -> dict[str, Any]:
    """Axis ticks that cover everything drawn, and 0."""
    parts = [np.ravel(np.asarray(part, dtype=np.float64)) for part in drawn if part is not None]
    ends = np.concatenate([[0.0], *parts])
    return share_axis(float(np.nanmin(ends)), float(np.nanmax(ends)), 8, change=True)


def _add_random_band(figure: go.Figure, layers: NDArray, band: NDArray[np.float64]) -> None:
    figure.add_trace(
        go.Bar(
            name="random neurons of the layer",
            meta="random-band",
            x=layers,
            base=band[:, 1],
            y=band[:, 2] - band[:, 1],
            width=0.9,
            marker={"color": palette.translucent(palette.RANDOM, 0.35), "line": {"width": 0}},
            hovertext=[
                f"layer {layer}, the same number of random neurons: {points(change, 1)} "
                f"(95 %: {points(low, 1)} to {points(high, 1)})"
                for layer, (change, low, high) in zip(layers, band, strict=True)
            ],
            hoverinfo="text",
        )
    )


def _add_changes(
    figure: go.Figure, name: str, meta: str, layers: NDArray, changes: NDArray, symbol: str, dark: bool
) -> None:
    colour = palette.STEERED if meta == "alone" else palette.muted(dark)
    figure.add_trace(
        go.Scatter(
            name=name,
            meta=meta,
            x=layers + (0.0 if meta == "alone" else 0.22),
            y=changes[:, 0],
            mode="markers",
            marker={"size": 9 if meta == "alone" else 7, "symbol": symbol, "color": colour},
            error_y={
                "type": "data",
                "array": changes[:, 2] - changes[:, 0],
                "arrayminus": changes[:, 0] - changes[:, 1],
                "color": palette.translucent(colour, 0.6),
                "thickness": 1,
                "width": 2,
            },
            hovertext=[
                f"layer {layer}, {name} ablated: {points(change, 1)}"
                for layer, change in zip(layers, changes[:, 0], strict=True)
            ],
            hoverinfo="text",
        )
    )

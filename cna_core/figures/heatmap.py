"""The map of all neurons: layer by neuron, pooled so that no peak is lost, with the circuit marked on top.

Pure functions of arrays. Layer 0 is at the bottom here and in every chart that shares the layer axis.
"""

from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.figures import palette
from cna_core.figures.map_density import crowded_layers, density_bars
from cna_core.figures.neuron_cells import LARGEST_COLUMNS, Cells, NeuronStatistics, Order, Quantity, pool
from cna_core.figures.percents import percent
from cna_core.models.layout import NeuronLayout

LARGEST_CLICKABLE_COLUMNS = 768
"""The limit when every cell has a mark to click: 80 layers then take 3 MB to send instead of 4."""
ROBUST_PERCENTILE = 99.5
"""The colour scale ends at this percentile of the cells' |value|, so that a few huge neurons do not hide the rest."""
HEIGHT = 480
MARGIN_TOP, MARGIN_BOTTOM = 62, 44
"""Shared by the charts beside the map, so that their layers line up with its rows."""

_TITLES = {
    "delta": ("δ of every neuron", "δ"),
    "magnitude": ("|δ| of every neuron", "|δ|"),
    "effect-size": ("Effect size of every neuron", "effect size"),
    "effect": ("Push towards refusal of every neuron", "−effect"),
}


def neuron_heatmap(
    statistics: NeuronStatistics,
    *,
    circuit: Circuit | None = None,
    universal: NDArray[np.integer] | None = None,
    leading: NDArray[np.integer] | None = None,
    selection_frequency: NDArray[np.floating] | None = None,
    quantity: Quantity = "delta",
    order: Order = "index",
    layers: tuple[int, int] | None = None,
    neurons: tuple[int, int] | None = None,
    picked: tuple[int, int] | None = None,
    clickable_cells: bool = False,
    colour_limit: float | None = None,
    final: float = 0.10,
    height: int = HEIGHT,
    dark: bool = False,
) -> go.Figure:
    """The map: colour is the value, dots are the circuit, rings are universal neurons, gold frames the final layers.

    The traces' `meta` is "cells", "circuit", "density", "universal", "leading", "picked" or "grid". The customdata of
    dots, rings and grid begins with (layer, neuron), so that a click identifies the neuron. In layers where dots would
    cover each other, "density" takes their place.

    Args:
        statistics: statistics of every neuron.
        circuit: marked with dots.
        universal: (n,) flat positions, marked with rings.
        leading: (n,) flat positions of the strongest neurons so far, while prompts are recorded; marked with dots.
        selection_frequency: (circuit,) shown on hover.
        quantity: the value that colours show.
        order, layers, neurons: as in `pool`.
        picked: (layer, neuron) to put a ring around.
        clickable_cells: put an invisible mark on every cell, because a heatmap alone sends no clicks.
        colour_limit: the end of the colour scale; None takes the `ROBUST_PERCENTILE` of the cells.
        final: the share of the layers that is framed.
        height: in pixels.
        dark: whether the page is dark.
    """
    layout = statistics.layout
    columns = LARGEST_CLICKABLE_COLUMNS if clickable_cells else LARGEST_COLUMNS
    cells = pool(statistics.values(quantity), layout, layers, neurons, order, columns)
    limit = colour_limit or robust_limit(cells.values)
    title, unit = _TITLES[quantity]
    figure = go.Figure()
    details = _cell_details(statistics, cells)
    figure.add_trace(
        go.Heatmap(
            name="cells",
            meta="cells",
            z=cells.values,
            x0=float(cells.centres[0]),
            dx=cells.bin_width,
            y0=cells.first_layer,
            dy=1,
            zmin=0 if quantity == "magnitude" else -limit,
            zmax=limit,
            zsmooth=False,
            colorscale=palette.sequential(dark) if quantity == "magnitude" else palette.diverging(dark),
            colorbar=_colorbar(unit, limit, quantity, dark),
            **(
                {"hoverinfo": "skip"}
                if clickable_cells
                else {"customdata": details, "hovertemplate": _hover(statistics, cells.bin_width > 1)}
            ),
        )
    )
    if clickable_cells:
        none = np.empty(0, dtype=np.int64)
        dots = none if circuit is None else circuit.flat[~_is_crowded(statistics, cells, circuit.flat)]
        marked = np.concatenate([dots, none if universal is None else universal])
        figure.add_trace(_grid(statistics, cells, details, marked))
    if universal is not None and len(universal):
        figure.add_trace(_marks("universal", statistics, cells, np.asarray(universal), None, dark))
    if circuit is not None:
        figure.add_traces(_circuit(statistics, cells, circuit.flat, selection_frequency, dark))
    if leading is not None:
        figure.add_trace(_marks("leading", statistics, cells, np.asarray(leading), None, dark))
    if picked is not None:
        figure.add_trace(_picked_ring(statistics, cells, picked, dark))
    last_layer = cells.first_layer + len(cells.values) - 1
    end = cells.first_position + cells.values.shape[1] * cells.bin_width
    along = "neuron" if order == "index" else "rank by value, largest first"
    pooled = f" ({cells.bin_width} to a cell, the strongest shown)" if cells.bin_width > 1 else " (one to a cell)"
    _frame_map(figure, f"{title}, layer by neuron", along + pooled, (cells.first_position, end), height, dark)
    _frame_final_layers(figure, (cells.first_layer, last_layer), layout, final, dark)
    layer_axis(figure, cells.first_layer, last_layer)
    return figure


def blank_map(
    layout: NeuronLayout, words: str, *, final: float = 0.10, height: int = HEIGHT, dark: bool = False
) -> go.Figure:
    """The map before anything is recorded, in the size and with the axes that it will have.

    Args:
        layout: layers and neurons.
        words: what will appear, written in the middle; "<br>" begins a line.
        final: the share of the layers that is framed.
        height: in pixels.
        dark: whether the page is dark.
    """
    widest = max(layout.widths)
    figure = go.Figure(
        go.Heatmap(
            name="cells",
            meta="cells",
            z=np.zeros((layout.layers, 1), dtype=np.float32),
            x0=(widest - 1) / 2,
            dx=widest,
            y0=0,
            dy=1,
            zmin=-1,
            zmax=1,
            colorscale=palette.diverging(dark),
            colorbar=_colorbar("δ", 1, "delta", dark) | {"tickvals": [-1, 0, 1], "ticktext": ["−", "0", "+"]},
            hoverinfo="skip",
        )
    )
    _frame_map(figure, "δ of every neuron, layer by neuron", "neuron", (0, widest), height, dark)
    _frame_final_layers(figure, (0, layout.layers - 1), layout, final, dark)
    layer_axis(figure, 0, layout.layers - 1)
    figure.add_annotation(
        text=words,
        xref="x domain",
        yref="y domain",
        x=0.5,
        y=0.45,
        showarrow=False,
        font={"size": 14, "color": palette.muted(dark)},
    )
    return figure


def _frame_map(figure: go.Figure, title: str, along: str, neurons: tuple[int, int], height: int, dark: bool) -> None:
    """Set title, margins and the horizontal axis; `neurons` are the first position and the first beyond the end."""
    palette.frame(
        figure,
        title,
        height,
        dark,
        margin={"l": 56, "r": 12, "t": MARGIN_TOP, "b": MARGIN_BOTTOM},
        clickmode="event+select",
        dragmode=False,  # ranges are chosen beside the map, which is then pooled anew for them
        barmode="overlay",
        bargap=0,
    )
    first, end = neurons
    figure.update_xaxes(title_text=along, range=[first - 0.5, end - 0.5], showgrid=False, constrain="domain")
    figure.update_layout(xaxis_fixedrange=True, yaxis_fixedrange=True)


def layer_axis(figure: go.Figure, first_layer: int, last_layer: int, title: str = "layer") -> None:
    """Set the vertical axis that all layer charts share: layer 0 at the bottom, half a row of margin at each end."""
    figure.update_yaxes(
        range=[first_layer - 0.5, last_layer + 0.5],
        tickvals=layer_ticks(first_layer, last_layer),
        showgrid=False,
        title_text=title,
    )


def layer_ticks(first_layer: int, last_layer: int) -> list[int]:
    """The layers that an axis labels: round numbers, and always the last layer."""
    shown = last_layer - first_layer + 1
    step = next((step for step in (1, 2, 5, 10, 20, 50) if shown / step <= 16), 100)
    rounds = [layer for layer in range(first_layer, last_layer + 1) if layer % step == 0]
    return [layer for layer in rounds if 2 * (last_layer - layer) > step] + [last_layer]


def robust_limit(values: NDArray[np.floating]) -> float:
    """The end of the colour scale: the `ROBUST_PERCENTILE` of |values| without NaN; 1 if all are zero."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(finite, ROBUST_PERCENTILE)) if len(finite) else 0.0
    return limit or float(finite.max(initial=0)) or 1.0


def _colorbar(unit: str, limit: float, quantity: Quantity, dark: bool) -> dict:
    """A thin colour bar whose ends are labelled "≤" and "≥", since all values beyond them share a colour."""
    ends = {-limit: f"≤ −{limit:.2g}", 0.0: "0", limit: f"≥ {limit:.2g}"}
    if quantity == "magnitude":
        del ends[-limit]
    return {
        "thickness": 10,
        "outlinewidth": 0,
        "len": 1,
        "title": {"text": unit, "side": "top", "font": {"size": 12, "color": palette.muted(dark)}},
        "tickfont": {"color": palette.muted(dark), "size": 11},
        "tickvals": list(ends),
        "ticktext": list(ends.values()),
        "xpad": 6,
    }


def _detail_columns(statistics: NeuronStatistics) -> list[tuple[str, NDArray[np.float32]]]:
    columns = [("δ", statistics.delta)]
    if statistics.positive_mean is not None and statistics.negative_mean is not None:
        columns.append(("mean, positive prompts", statistics.positive_mean))
        columns.append(("mean, negative prompts", statistics.negative_mean))
    if statistics.effect_size is not None:
        columns.append(("effect size", statistics.effect_size))
    if statistics.effect is not None:
        columns.append(("effect", statistics.effect))
    return columns


def _cell_details(statistics: NeuronStatistics, cells: Cells) -> NDArray[np.float32]:
    """(rows, columns, 2 + details) float32: layer, neuron, then each statistic of the neuron shown."""
    rows = np.arange(len(cells.values)) + cells.first_layer
    flat = statistics.layout.offsets[rows][:, None] + cells.neurons
    flat = np.where(cells.neurons < 0, 0, flat)
    layer = np.broadcast_to(rows[:, None], flat.shape)
    values = [layer, cells.neurons, *(column[flat] for _, column in _detail_columns(statistics))]
    return np.stack(values, -1).astype(np.float32)


def _hover(statistics: NeuronStatistics, pooled: bool = False, marks: tuple[str, ...] = ()) -> str:
    lines = ["layer %{customdata[0]:d}, neuron %{customdata[1]:d}" + (" (strongest here)" if pooled else "")]
    place = 2
    for name, _ in _detail_columns(statistics):
        lines.append(f"{name} %{{customdata[{place}]:.3g}}")
        place += 1
    for name in marks:
        pattern, words = (":.0%", " of the resamples") if name == "selected in" else (":d", "")
        lines.append(f"{name} %{{customdata[{place}]{pattern}}}{words}")
        place += 1
    return "<br>".join(lines) + "<extra></extra>"


def _grid(
    statistics: NeuronStatistics, cells: Cells, details: NDArray[np.float32], marked: NDArray[np.int64]
) -> go.Scattergl:
    exists = cells.neurons >= 0
    # Leave out the cells under a mark: the nearest point gets the click, and a cell's is nearer than the mark's.
    _, x, y = _shown(statistics, cells, marked)
    centre = (x - cells.first_position) // cells.bin_width
    reach = exists.shape[1] // 110  # a mark's radius, in cells, on a map about 600 pixels wide
    for step in range(-reach, reach + 1):
        exists[y - cells.first_layer, np.clip(centre + step, 0, exists.shape[1] - 1)] = False
    rows, columns = np.nonzero(exists)
    return go.Scattergl(
        name="grid",
        meta="grid",
        x=cells.centres[columns],
        y=_small(rows + cells.first_layer),
        customdata=details[exists],
        mode="markers",
        marker={"opacity": 0, "size": 6, "color": palette.RANDOM},
        unselected={"marker": {"opacity": 0}},
        selected={"marker": {"opacity": 0}},
        hovertemplate=_hover(statistics, cells.bin_width > 1),
        showlegend=False,
    )


def _small(layers: NDArray) -> NDArray:
    """Layer numbers in one byte if they fit, which is less to send to the browser."""
    return layers.astype(np.uint8 if layers.max(initial=0) < 256 else np.int32)


def _shown(statistics: NeuronStatistics, cells: Cells, flat: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """A mask (n,) of the neurons at flat positions (n,) that the map shows, and the (x, y) of those."""
    layers, neurons = statistics.layout.locate(flat)
    rows = layers - cells.first_layer
    inside = (rows >= 0) & (rows < len(cells.values))
    position = np.full(len(flat), -1)
    position[inside] = cells.positions[rows[inside], neurons[inside]]
    last = cells.first_position + cells.values.shape[1] * cells.bin_width
    inside &= (position >= cells.first_position) & (position < last)
    return inside, position[inside], layers[inside]


def _mark_pixels(count: int) -> float:
    """The diameter of a mark, by how many neurons the circuit has."""
    return 7 if count <= 200 else 5 if count <= 1000 else 3.5


def _is_crowded(statistics: NeuronStatistics, cells: Cells, flat: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(n,) bool: which neurons of a circuit are shown in a layer where dots would cover each other."""
    inside, _, y = _shown(statistics, cells, flat)
    layers, _ = statistics.layout.locate(flat)
    return inside & np.isin(layers, crowded_layers(y, _mark_pixels(len(flat))))


def _circuit(
    statistics: NeuronStatistics,
    cells: Cells,
    flat: NDArray[np.integer],
    selection_frequency: NDArray[np.floating] | None,
    dark: bool,
) -> list[go.Scattergl | go.Bar]:
    """The circuit's dots, and its density in layers where they would cover each other."""
    crowded = _is_crowded(statistics, cells, flat)
    traces: list[go.Scattergl | go.Bar] = [_marks("circuit", statistics, cells, flat, selection_frequency, dark)]
    if crowded.any():
        _, x, y = _shown(statistics, cells, flat[crowded])
        end = cells.first_position + cells.values.shape[1] * cells.bin_width
        traces.append(density_bars(x, y, cells.first_position, end, dark))
    return traces


def _marks(
    name: Literal["circuit", "universal", "leading"],
    statistics: NeuronStatistics,
    cells: Cells,
    flat: NDArray[np.integer],
    selection_frequency: NDArray[np.floating] | None,
    dark: bool,
) -> go.Scattergl:
    inside, x, y = _shown(statistics, cells, flat)
    if name == "circuit":
        dots = ~_is_crowded(statistics, cells, flat)
        x, y, inside = x[dots[inside]], y[dots[inside]], inside & dots
    layers, neurons = statistics.layout.locate(flat[inside])
    columns = [layers, neurons, *(column[flat[inside]] for _, column in _detail_columns(statistics))]
    marks: tuple[str, ...] = ()
    if name == "circuit":
        columns.append(np.flatnonzero(inside) + 1)
        marks = ("rank",)
        if selection_frequency is not None:
            columns.append(selection_frequency[inside])
            marks = ("rank", "selected in")
    ink, paper = palette.ink(dark), palette.background(dark)
    marker = (
        {"symbol": "circle", "size": _mark_pixels(len(flat)), "color": ink, "line": {"width": 1, "color": paper}}
        if name != "universal"
        else {"symbol": "circle-open", "size": 9, "color": ink, "line": {"width": 1.5}}
    )
    return go.Scattergl(
        name="strongest so far" if name == "leading" else name,
        meta=name,
        x=x.astype(np.float32),
        y=_small(y),
        customdata=np.stack(columns, -1).astype(np.float32),
        mode="markers",
        marker=marker,
        unselected={"marker": {"opacity": 1}},
        hovertemplate=f"<b>{name}</b><br>" + _hover(statistics, marks=marks),
    )


def _picked_ring(statistics: NeuronStatistics, cells: Cells, picked: tuple[int, int], dark: bool) -> go.Scatter:
    flat = statistics.layout.flat(np.array([picked[0]]), np.array([picked[1]]))
    _, x, y = _shown(statistics, cells, flat)
    return go.Scatter(
        name="picked",
        meta="picked",
        x=x,
        y=y,
        mode="markers",
        marker={"symbol": "circle-open", "size": 18, "color": palette.ink(dark), "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
    )


def _frame_final_layers(
    figure: go.Figure, layers: tuple[int, int], layout: NeuronLayout, final: float, dark: bool
) -> None:
    first, last = max(layout.first_layer_of_final(final), layers[0]), layers[1]
    if first > last:
        return
    figure.add_shape(
        type="rect",
        xref="x domain",
        yref="y",
        x0=0,
        x1=1,
        y0=first - 0.5,
        y1=layout.layers - 0.5,
        line={"color": palette.FINAL_FRAME, "width": 2.5},
        layer="above",
    )
    figure.add_annotation(
        text=f"final {percent(final)} of layers",
        xref="x domain",
        yref="y",
        x=1,
        y=layout.layers - 0.5,
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"color": palette.gold_ink(dark), "size": 12},
    )

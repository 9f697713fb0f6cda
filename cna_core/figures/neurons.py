"""Charts of neurons: distributions in each layer, and the charts of one neuron's card.

Pure functions from arrays to figures. The coloured text is returned as HTML in which the user's text is escaped. Layer
0 is at the bottom, as in all charts.
"""

import html
import textwrap
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cna_core.figures import palette
from cna_core.figures.heatmap import layer_ticks
from cna_core.models.layout import NeuronLayout

BINS = 121
"""Odd, so that zero is the middle of a bin."""


def delta_ridgelines(
    values: NDArray[np.floating],
    layout: NeuronLayout,
    *,
    cutoff: float,
    name: str = "δ",
    layers: tuple[int, int] | None = None,
    final: float = 0.10,
    dark: bool = False,
) -> go.Figure:
    """One ridge for each layer: the number of neurons by value, on a logarithmic scale, with the circuit's cutoff.

    The horizontal axis extends to 2.5 times the cutoff; values beyond are counted in the outermost bins. The traces'
    `meta` is the layer's number, their customdata are the counts.

    Args:
        values: (total,) δ or effect size.
        layout: layers and neurons.
        cutoff: the circuit's smallest |value|.
        name: the value's name, for titles.
        layers: first and last layer shown; None shows all.
        final: the share of the layers whose ridges are gold.
        dark: whether the page is dark.
    """
    first, last = layers or (0, layout.layers - 1)
    edges = np.linspace(-1, 1, BINS + 1) * 2.5 * (cutoff or 1)
    parts = layout.split(values)[first : last + 1]
    counts = np.stack([np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] for part in parts])
    figure = go.Figure()
    _add_ridges(figure, edges, counts, first, layout, final, f"neurons with this {name}", dark)
    for cut in (-cutoff, cutoff):
        figure.add_vline(x=cut, line={"color": palette.STEERED, "width": 1.5, "dash": "dash"})
    figure.add_annotation(
        text=f"circuit's cutoff, |{name}| ≥ {cutoff:.2g}",
        x=1,
        xref="paper",
        y=1,
        yref="paper",
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"color": palette.STEERED, "size": 12},
    )
    _ridge_frame(
        figure, f"{name} in every layer", f"{name} (outermost bins include all values beyond)", first, last, dark
    )
    return figure.update_xaxes(range=[edges[0], edges[-1]])


def activation_ridgelines(
    values: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
    layers_of_columns: NDArray[np.integer],
    layout: NeuronLayout,
    *,
    directions: NDArray[np.floating] | None = None,
    layers: tuple[int, int] | None = None,
    dark: bool = False,
) -> go.Figure:
    """A pair of ridges for each layer: activations on positive (orange) and negative (teal) prompts, logarithmic.

    The traces' `meta` is "positive" or "negative" and the layer's number, as in "positive 23"; customdata are counts.

    Args:
        values: (prompts, n) activations of the chosen neurons.
        is_positive: (prompts,) bool.
        layers_of_columns: (n,) the layer of each column.
        layout: layers and neurons.
        directions: (n,), δ of each neuron: signs are flipped so that every neuron's mean is higher on positive prompts.
        layers: first and last layer shown; None shows from the first layer that has a column to the last layer.
        dark: whether the page is dark.
    """
    first, last = layers or (int(layers_of_columns.min(initial=layout.layers - 1)), layout.layers - 1)
    if directions is not None:
        values = values * np.where(directions < 0, -1, 1).astype(np.float32)
    shown = (layers_of_columns >= first) & (layers_of_columns <= last)
    reach = float(np.percentile(np.abs(values[:, shown]), 99.9)) if shown.any() else 1.0
    edges = np.linspace(-1, 1, BINS + 1) * (reach or 1)
    figure = go.Figure()
    for name, colour, chosen in (
        ("negative", palette.NEGATIVE, ~is_positive),
        ("positive", palette.POSITIVE, is_positive),
    ):
        counts = np.stack(
            [
                np.histogram(np.clip(values[chosen][:, layers_of_columns == layer], edges[0], edges[-1]), edges)[0]
                for layer in range(first, last + 1)
            ]
        )
        _add_ridges(figure, edges, counts, first, layout, 0, f"activations on {name} prompts", dark, colour, name)
    words = "activation" if directions is None else "activation, sign flipped if δ < 0"
    title = "Activations by layer and prompt set" + ("" if first == 0 else f", from layer {first} on")
    _ridge_frame(figure, title, f"{words} (outermost bins include all values beyond)", first, last, dark)
    _set_legend(figure, dark)
    return figure.update_xaxes(range=[edges[0], edges[-1]])


def final_layer_histograms(
    values: NDArray[np.floating],
    layout: NeuronLayout,
    *,
    cutoff: float,
    count: int = 6,
    name: str = "δ",
    dark: bool = False,
) -> go.Figure:
    """Small multiples of the last layers: the number of neurons by value, coloured beyond the circuit's cutoff.

    Counts are logarithmic and all panels share both axes. The traces' `meta` is the layer's number.

    Args:
        values: (total,) δ or effect size.
        layout: layers and neurons.
        cutoff: the circuit's smallest |value|.
        count: the number of last layers to show.
        name: the value's name, for titles.
        dark: whether the page is dark.
    """
    chosen = list(range(max(0, layout.layers - count), layout.layers))[::-1]
    parts = layout.split(values)
    reach = max(float(np.abs(parts[layer]).max()) for layer in chosen) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=0.16,
        subplot_titles=[f"layer {layer}: {int((np.abs(parts[layer]) >= cutoff).sum())}" for layer in chosen],
    )
    for place, layer in enumerate(chosen):
        counts = np.histogram(parts[layer], edges)[0]
        beyond = np.abs(centres) >= cutoff
        figure.add_trace(
            go.Bar(
                meta=layer,
                x=centres,
                y=counts,
                width=edges[1] - edges[0],
                marker={
                    "color": np.where(beyond, palette.STEERED, palette.muted(dark)),
                    "line": {"width": 0},
                },
                hovertemplate=f"layer {layer}, {name} %{{x:.2f}}: %{{y}} neurons<extra></extra>",
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    title = f"{name} in the last {len(chosen)} layers: neurons beyond the cutoff"
    palette.frame(figure, title, 210 * rows + 70, dark, showlegend=False, bargap=0)
    figure.update_layout(margin={"t": 72})
    figure.update_annotations(font={"size": 12, "color": palette.ink(dark)})
    figure.update_yaxes(type="log", dtick=1, range=[-0.3, None], exponentformat="none")
    figure.update_yaxes(title_text="neurons", col=1)
    figure.update_xaxes(title_text=name, row=rows)
    return figure


def prompt_strip(
    values: NDArray[np.floating], is_positive: NDArray[np.bool_], prompts: Sequence[str], *, dark: bool = False
) -> go.Figure:
    """One neuron's activation on every prompt: one dot for each prompt, one row for each set, means as bars.

    The traces' `meta` is "positive", "negative", "positive mean" or "negative mean".

    Args:
        values: (prompts,) activations.
        is_positive: (prompts,) bool.
        prompts: shown on hover, escaped and cut to 200 characters.
        dark: whether the page is dark.
    """
    figure = go.Figure()
    spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(values))  # so that dots do not hide each other
    texts = np.array([wrapped_prompt(prompt) for prompt in prompts], dtype=object)
    for row, (name, colour, chosen) in enumerate(
        (("negative", palette.NEGATIVE, ~is_positive), ("positive", palette.POSITIVE, is_positive))
    ):
        figure.add_trace(
            go.Scatter(
                meta=name,
                x=np.asarray(values)[chosen],
                y=row + spread[chosen],
                mode="markers",
                marker={"size": 7, "color": colour, "opacity": 0.75, "line": {"width": 0}},
                customdata=texts[chosen],
                hovertemplate="%{customdata}<br>activation %{x:.3g}<extra></extra>",
            )
        )
        mean = float(np.mean(np.asarray(values)[chosen])) if chosen.any() else np.nan
        figure.add_trace(
            go.Scatter(
                meta=f"{name} mean",
                x=[mean, mean],
                y=[row - 0.38, row + 0.38],
                mode="lines",
                line={"color": palette.ink(dark), "width": 2.5},
                hovertemplate=f"mean on {name} prompts %{{x:.3g}}<extra></extra>",
            )
        )
    palette.frame(figure, "Activation on every prompt", 250, dark, showlegend=False, margin={"l": 76, "t": 40, "b": 44})
    figure.update_xaxes(title_text="activation at the last token (bar: mean of the set)")
    figure.update_yaxes(
        range=[-0.5, 1.5],
        tickvals=[0, 1],
        ticktext=["negative", "positive"],
        showgrid=False,
        tickfont={"color": palette.ink(dark)},
    )
    return figure


def token_bars(up: Sequence[tuple[str, float]], down: Sequence[tuple[str, float]], *, dark: bool = False) -> go.Figure:
    """The tokens that a neuron promotes and suppresses most, strongest at the top, both on the same scale.

    The traces' `meta` is "up" and "down". White space in tokens is made visible.

    Args:
        up, down: (token, logits per unit of activation), strongest first.
        dark: whether the page is dark.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.4)
    reach = max((abs(value) for _, value in (*up, *down)), default=1.0) * 1.05
    for column, (meta, pairs, colour) in enumerate(
        (("down", down, palette.diverging(dark)[1][1]), ("up", up, palette.diverging(dark)[5][1])), start=1
    ):
        figure.add_trace(
            go.Bar(
                meta=meta,
                x=np.array([value for _, value in pairs]),
                y=np.arange(len(pairs)),
                orientation="h",
                marker={"color": colour},
                customdata=[visible_token(token) for token, _ in pairs],
                hovertemplate="%{customdata} %{x:+.3f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(
            tickvals=np.arange(len(pairs)),
            ticktext=[visible_token(token) for token, _ in pairs],
            range=[len(pairs) - 0.5, -0.5],
            showgrid=False,
            row=1,
            col=column,
        )
    palette.frame(
        figure,
        "Tokens it suppresses and promotes",
        60 + 26 * max(len(up), len(down), 1) + 40,
        dark,
        showlegend=False,
        bargap=0.25,
        margin={"l": 112, "t": 40, "b": 44},
    )
    figure.update_yaxes(tickfont={"color": palette.ink(dark)})
    figure.update_xaxes(title_text="logits per unit of activation", nticks=3)
    figure.update_xaxes(range=[-reach, 0], col=1)
    figure.update_xaxes(range=[0, reach], col=2)
    return figure


def token_strip(tokens: Sequence[str], values: NDArray[np.floating], *, dark: bool = False) -> str:
    """A text as HTML with coloured tokens: vermilion for positive activations, blue for negative ones.

    The text is escaped. The scale is symmetric; full colour is the largest |value|.

    Args:
        tokens: the text's tokens.
        values: (tokens,) activations.
        dark: whether the page is dark.
    """
    limit = float(np.abs(values).max(initial=0)) or 1.0
    negative, positive = palette.diverging(dark)[1][1], palette.diverging(dark)[5][1]
    spans = []
    for token, value in zip(tokens, np.asarray(values, dtype=np.float64), strict=True):
        strength = abs(float(value)) / limit
        colour = palette.translucent(positive if value > 0 else negative, round(0.75 * strength, 3))
        shown = html.escape(token).replace("\n", "↵<br>")
        spans.append(
            f'<span style="background:{colour};border-radius:3px;padding:2px 0" title="{value:.3g}">{shown}</span>'
        )
    style = f"line-height:2;white-space:pre-wrap;overflow-wrap:anywhere;color:{palette.ink(dark)}"
    return f'<div style="{style}">{"".join(spans)}</div>'


def visible_token(token: str) -> str:
    """A token as a label: white space made visible, markup escaped, long tokens cut."""
    shown = token.replace(" ", "␣").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return html.escape(shown if len(shown) <= 13 else shown[:12] + "…") or "∅"


def _add_ridges(
    figure: go.Figure,
    edges: NDArray[np.floating],
    counts: NDArray[np.integer],
    first: int,
    layout: NeuronLayout,
    final: float,
    words: str,
    dark: bool,
    colour: str | None = None,
    name: str = "",
) -> None:
    """Add ridges for layers first, first + 1, …; `counts` is (layers, bins). A ridge is at most 1.6 rows high."""
    centres = (edges[:-1] + edges[1:]) / 2
    heights = np.log10(1 + counts)
    heights = 1.6 * heights / max(float(heights.max(initial=0)), 1e-9)
    first_final = layout.first_layer_of_final(final) if final else layout.layers
    for row in range(len(counts) - 1, -1, -1):  # from the top down, so that lower ridges lie in front
        layer = first + row
        line = colour or (palette.FINAL_FRAME if layer >= first_final else palette.muted(dark))
        figure.add_trace(
            go.Scatter(
                x=centres,
                y=np.full(len(centres), layer, dtype=np.float64),
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                meta=f"{name} {layer}".strip(),
                x=centres,
                y=layer + heights[row],
                mode="lines",
                line={"color": line, "width": 1.2},
                fill="tonexty",
                fillcolor=palette.translucent(line, 0.3),
                customdata=counts[row],
                hovertemplate=f"layer {layer}, %{{x:.3g}}: %{{customdata:,}} {words}<extra></extra>",
                showlegend=False,
            )
        )


def _ridge_frame(figure: go.Figure, title: str, along: str, first: int, last: int, dark: bool) -> go.Figure:
    rows = last - first + 1
    height = int(np.clip(130 + 22 * rows, 330, 760))
    palette.frame(figure, title, height, dark, margin={"t": 76})
    figure.update_xaxes(title_text=along)
    ticks = layer_ticks(first, last)
    figure.update_yaxes(title_text="layer", range=[first - 0.4, last + 1.8], tickvals=ticks, showgrid=False)
    return figure


def _set_legend(figure: go.Figure, dark: bool) -> None:
    sets = (("positive", palette.POSITIVE), ("negative", palette.NEGATIVE))
    figure.add_annotation(
        text="   ".join(f'<span style="color:{colour}">■</span> {name} prompts' for name, colour in sets),
        xref="paper",
        yref="paper",
        x=0,
        y=1,
        yshift=4,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"color": palette.ink(dark), "size": 12},
    )


def wrapped_prompt(prompt: str) -> str:
    """A prompt for hover text: escaped, in lines of 60 characters, cut to 200."""
    short = prompt if len(prompt) <= 200 else prompt[:199] + "…"
    return "<br>".join(html.escape(line) for line in textwrap.wrap(short, 60)) or "(empty)"

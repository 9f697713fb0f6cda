"""A measure over circuit size and strength, as a grid. Pure functions of arrays."""

import math

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.figures import palette
from cna_core.figures.sweep_curves import REFUSAL, Quantity


def grid_heatmap(
    strengths: NDArray[np.floating],
    fractions: NDArray[np.floating],
    values: NDArray[np.floating],
    quantity: Quantity = REFUSAL,
    *,
    chosen: tuple[float, float] | None = None,
    dark: bool = False,
) -> go.Figure:
    """A measure over circuit size and strength, its number in each cell.

    Args:
        strengths: (s,), fractions: (f,) shares of all neurons, both ascending.
        values: (f, s); NaN where nothing was measured.
        chosen: (strength, fraction) of the working point, framed in gold.
        dark: for a dark page.
    """
    values = np.asarray(values, dtype=np.float64)
    columns = [f"{strength:g}" for strength in strengths]
    rows = [f"{100 * fraction:g} %" for fraction in fractions]
    words = [[_number(value, quantity) for value in line] for line in values]
    ceiling = 1.0 if quantity.percent else float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    figure = go.Figure(
        go.Heatmap(
            meta=f"grid/{quantity.measure}",
            x=columns,
            y=rows,
            z=values,
            text=words,
            texttemplate="%{text}",
            zmin=0 if quantity.percent or quantity.floor == 0 else None,
            zmax=ceiling,
            colorscale=palette.sequential(dark),
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate=f"strength %{{x}}, %{{y}} of all neurons: {quantity.title} %{{text}}<extra></extra>",
        )
    )
    height = 150 + 44 * max(2, len(rows))
    palette.frame(figure, f"{quantity.title.capitalize()}, by circuit size and strength", height, dark)
    figure.update_layout(margin={"l": 96})
    figure.update_xaxes(type="category", title_text="strength", showgrid=False)
    figure.update_yaxes(type="category", title_text="circuit, share of all neurons", showgrid=False)
    if chosen is not None and f"{chosen[0]:g}" in columns and f"{100 * chosen[1]:g} %" in rows:
        column, row = columns.index(f"{chosen[0]:g}"), rows.index(f"{100 * chosen[1]:g} %")
        box = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", **box, line={"color": palette.FINAL_FRAME, "width": 3})
    return figure


def _number(value: float, quantity: Quantity) -> str:
    if not math.isfinite(value):
        return ""
    if quantity.percent:
        return f"{100 * value:{'+' if quantity.signed else ''}.0f} %".replace("-", "−")
    return f"{value:.3g}"

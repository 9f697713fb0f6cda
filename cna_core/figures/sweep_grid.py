"""A measure by circuit size and strength, as a grid. Pure functions of arrays."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.figures import palette


def grid_heatmap(
    strengths: NDArray[np.floating],
    fractions: NDArray[np.floating],
    values: NDArray[np.floating],
    measure: type[Measure] = RefusalRate,
    *,
    chosen: tuple[float, float] | None = None,
    dark: bool = False,
) -> go.Figure:
    """A measure by circuit size and strength, with its value written in each cell.

    Args:
        strengths: (s,) ascending.
        fractions: (f,) shares of all neurons, ascending.
        values: (f, s); NaN where nothing was measured.
        measure: the measure, which formats the values.
        chosen: (strength, fraction) of the working point, framed in gold.
        dark: whether the page is dark.
    """
    values = np.asarray(values, dtype=np.float64)
    columns = [f"{strength:g}" for strength in strengths]
    rows = [f"{100 * fraction:g} %" for fraction in fractions]
    words = [[measure.say(value) for value in line] for line in values]
    low, high = _colour_range(values, measure)
    scale = palette.sequential(dark)
    figure = go.Figure(
        go.Heatmap(
            meta=f"grid/{measure.drawn_field()}",
            x=columns,
            y=rows,
            z=values,
            text=words,
            zmin=low,
            zmax=high,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate=f"strength %{{x}}, %{{y}} of all neurons: {measure.panel_title()} %{{text}}<extra></extra>",
        )
    )
    height = 150 + 44 * max(2, len(rows))
    title = measure.panel_title()
    title = title[0].upper() + title[1:]
    palette.frame(figure, f"{title} by circuit size and strength", height, dark)
    figure.update_layout(margin={"l": 108})
    figure.update_xaxes(type="category", title_text="strength", showgrid=False)
    figure.update_yaxes(type="category", title={"text": "share of all neurons", "standoff": 18}, showgrid=False)
    for row, column in np.argwhere(np.isfinite(values)).tolist():
        cell = palette.colour_at(scale, (values[row, column] - low) / (high - low))
        figure.add_annotation(
            x=column,  # positions, not names: Plotly would read the name "1" as a position
            y=row,
            text=words[row][column],
            showarrow=False,
            font={"size": 12, "color": palette.ink_on(cell)},
        )
    if chosen is not None and f"{chosen[0]:g}" in columns and f"{100 * chosen[1]:g} %" in rows:
        column, row = columns.index(f"{chosen[0]:g}"), rows.index(f"{100 * chosen[1]:g} %")
        box = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", **box, line={"color": palette.FINAL_FRAME, "width": 3})
    return figure


def _colour_range(values: NDArray[np.floating], measure: type[Measure]) -> tuple[float, float]:
    """The values of the first and the last colour."""
    known = values[np.isfinite(values)]
    least, largest = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    share = measure.numbers.is_share and not measure.drawn_as_change
    low = 0.0 if share or measure.axis.floor == 0 else least
    high = 1.0 if share else largest
    return low, high if high > low else low + 1.0

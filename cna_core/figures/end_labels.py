"""Labels at the right ends of curves, instead of a legend, moved apart where they would overlap.

Pure functions of numbers and words that do not know what the curves mean.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cna_core.figures import palette

LINE_LETTERS, MOST_LINES = 20, 3
"""A label has at most MOST_LINES lines of LINE_LETTERS characters."""
LINE_PIXELS = 16.5
LEADER_PIXELS = 16
"""The approximate distance from a curve's end to its label."""


@dataclass(frozen=True)
class EndLabel:
    """A label for the right end of a curve.

    Args:
        name: its text.
        x, y: the curve's end in axis units (powers of ten on a logarithmic axis).
        colour: the curve's colour.
    """

    name: str
    x: float
    y: float
    colour: str


def label_ends(
    figure: go.Figure, labels: Sequence[EndLabel], shown: tuple[float, float], pixels: float, dark: bool = False
) -> None:
    """Write the labels beside the first panel of a figure.

    Args:
        shown: the ends of the panel's vertical axis.
        pixels: the panel's height.
        dark: whether the page is dark.
    """
    unit = (shown[1] - shown[0]) / pixels
    ends = sorted(labels, key=lambda label: label.y)
    places = spread(
        [label.y for label in ends], [len(name_lines(label.name)) * LINE_PIXELS * unit for label in ends], shown
    )
    for label, place in zip(ends, places, strict=True):
        figure.add_annotation(
            text="<br>".join(map(palette.plain, name_lines(label.name))),
            align="left",
            xref="paper",  # an annotation beyond the end of its axis would not be drawn
            yref="y",
            x=1,
            xshift=4,
            y=place,
            xanchor="left",
            yanchor="middle",
            showarrow=False,
            font={"size": 12, "color": palette.words_in(label.colour, dark)},
        )
        if abs(place - label.y) > LINE_PIXELS * unit:
            figure.add_annotation(
                text="",
                xref="x",
                yref="y",
                x=label.x,
                y=label.y,
                ax=LEADER_PIXELS,
                ay=(label.y - place) / unit,  # pixels count downwards
                showarrow=True,
                arrowhead=0,
                arrowwidth=1,
                arrowcolor=palette.translucent(label.colour, 0.6),
            )


def spread(wanted: Sequence[float], heights: Sequence[float], shown: tuple[float, float]) -> list[float]:
    """Positions for items of these heights, close to the wanted ones, so that none overlaps another.

    Items are pushed up, then down from the top. They keep their order, and stay within `shown` if there is room.

    Args:
        wanted: (n,) wanted positions, ascending.
        heights: (n,) heights of the items.
        shown: the ends of the axis.
    """
    places = list(wanted)
    bottom = shown[0]
    for number, height in enumerate(heights):
        places[number] = max(places[number], bottom + height / 2)
        bottom = places[number] + height / 2
    top = shown[1]
    for number in reversed(range(len(places))):
        places[number] = min(places[number], top - heights[number] / 2)
        top = places[number] - heights[number] / 2
    return places


def name_lines(name: str) -> list[str]:
    """A name split into short lines. A very long name loses its middle, since its end distinguishes a run's curves."""
    lines = textwrap.wrap(name, LINE_LETTERS) or [""]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 2], f"{lines[MOST_LINES - 2]}…", lines[-1]]


def pixels_of(names: Sequence[str]) -> int:
    """The panel height that these labels need, in pixels."""
    return round(LINE_PIXELS * sum(len(name_lines(name)) for name in names))


def pixels_beside(names: Sequence[str]) -> int:
    """The margin width that these labels need, in pixels."""
    return 28 + 7 * max((len(line) for name in names for line in name_lines(name)), default=6)

"""Names at the right ends of curves, in place of a legend, moved apart where they would overlap.

Pure functions of numbers and words; knows nothing about what the curves mean.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cna_core.figures import palette

LINE_LETTERS, MOST_LINES = 20, 3
"""A name stands in lines of so many letters."""
LINE_PIXELS = 16.5
LEADER_PIXELS = 16
"""How far to the right of a curve's end its name begins, about."""


@dataclass(frozen=True)
class EndLabel:
    """A name for the right end of a curve.

    Args:
        name: what it says.
        x, y: the curve's end, as the axes count (powers of ten on a logarithmic one).
        colour: the curve's.
    """

    name: str
    x: float
    y: float
    colour: str


def label_ends(
    figure: go.Figure, labels: Sequence[EndLabel], shown: tuple[float, float], pixels: float, dark: bool = False
) -> None:
    """Write the names beside the first panel of a figure.

    Args:
        shown: the panel's vertical axis from and to.
        pixels: its height.
        dark: for a dark page.
    """
    unit = (shown[1] - shown[0]) / pixels
    ends = sorted(labels, key=lambda label: label.y)
    places = spread(
        [label.y for label in ends], [len(name_lines(label.name)) * LINE_PIXELS * unit for label in ends], shown
    )
    for label, place in zip(ends, places, strict=True):
        figure.add_annotation(
            text="<br>".join(name_lines(label.name)),
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
    """Places for things of these heights, near where they are wanted, none over another: pushed up, then down from the
    top; in the same order, and within `shown` where there is room.

    Args:
        wanted: (n,) ascending.
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
    """A name in short lines; of a very long one the middle is left out, as its end tells curves of a run apart."""
    lines = textwrap.wrap(name, LINE_LETTERS) or [""]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 2], f"{lines[MOST_LINES - 2]}…", lines[-1]]


def pixels_of(names: Sequence[str]) -> int:
    """How high a panel these names need."""
    return round(LINE_PIXELS * sum(len(name_lines(name)) for name in names))


def pixels_beside(names: Sequence[str]) -> int:
    """How wide a margin these names need."""
    return 28 + 7 * max((len(line) for name in names for line in name_lines(name)), default=6)

"""The project's colours, one meaning for each, light and dark, and the layout that every chart shares.

The categorical colours are by Okabe and Ito, and colour-blind people can distinguish them (jfly.uni-koeln.de/color).
"""

import html
from typing import Any

import plotly.graph_objects as go

BASELINE = "#0072B2"
STEERED = "#D55E00"
RANDOM = "#8A8A8A"
CAA = "#CC79A7"
METHOD_COLOURS = {
    "steered": STEERED,
    "addition": CAA,
    "mean": "#56B4E9",
    "direction": "#009E73",
    "affine": "#8F7A00",
    "other": "#6B6B6B",
}
"""The colour of each method, by the colour role that the method declares."""
RUN_COLOURS = ("#3C82C8", "#C9820A", "#B8578F", "#3F9170")
"""The colours of the runs of a comparison; all stand out from both backgrounds."""
POSITIVE = "#E69F00"
NEGATIVE = "#009E73"
FINAL_FRAME = "#C9A227"

FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"

READABLE = 4.5
"""The minimum contrast of text with its background (WCAG 2, level AA)."""

Colorscale = list[tuple[float, str]]


def plain(name: str) -> str:
    """A name for a chart's text: Plotly would read links and bold letters in it."""
    return html.escape(name, quote=False)


def background(dark: bool = False) -> str:
    """The page's background, as in .streamlit/config.toml; also the colour of zero on the diverging scale."""
    return "#14161A" if dark else "#FFFFFF"


def ink(dark: bool = False) -> str:
    """The colour of text, outlines, and the circuit's bars."""
    return "#E6E4DF" if dark else "#1F2328"


def muted(dark: bool = False) -> str:
    """The colour of axis labels and secondary text (contrast with the background above 4.5)."""
    return "#A8ADB5" if dark else "#5B6068"


def gold_ink(dark: bool = False) -> str:
    """The colour of text beside the gold frame, dark enough to read on the background."""
    return FINAL_FRAME if dark else "#83670A"


def grid(dark: bool = False) -> str:
    """The colour of grid lines and thin frames."""
    return "#2B2F37" if dark else "#E6E3DC"


def diverging(dark: bool = False) -> Colorscale:
    """A colour scale: blue for negative values, the page's background for zero, vermilion for positive values."""
    low = ["#9AD6FF", "#2E9BDC", "#1B5680"] if dark else ["#043A63", "#0072B2", "#A9D3EC"]
    high = ["#84401A", "#EA7325", "#FFCFA6"] if dark else ["#F8C7A5", "#D55E00", "#762F00"]
    colours = [*low, background(dark), *high]
    return list(zip([0, 0.2, 0.4, 0.5, 0.6, 0.8, 1], colours, strict=True))


def sequential(dark: bool = False) -> Colorscale:
    """A colour scale from the page's background (zero) to vermilion: the upper half of the diverging scale."""
    return [(2 * place - 1, colour) for place, colour in diverging(dark) if place >= 0.5]


def colour_at(scale: Colorscale, place: float) -> str:
    """The "#RRGGBB" colour of a scale at `place`, 0 to 1, interpolated as Plotly does."""
    place = min(1.0, max(0.0, place))
    upper = next(number for number, (end, _) in enumerate(scale) if number and place <= end)
    (start, first), (end, second) = scale[upper - 1], scale[upper]
    share = (place - start) / (end - start)
    mixed = (round((1 - share) * low + share * high) for low, high in zip(_parts(first), _parts(second), strict=True))
    return "#" + "".join(f"{part:02X}" for part in mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a "#RRGGBB" colour (contrast as in WCAG 2)."""
    light = luminance(colour)
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#FFFFFF"


def luminance(colour: str) -> float:
    """Relative luminance of a "#RRGGBB" colour, 0 to 1 (WCAG 2)."""
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in _shares(colour))
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def words_in(colour: str, dark: bool = False) -> str:
    """The "#RRGGBB" colour closest to this one, mixed with ink, in which text is readable on the background."""
    behind, ends = luminance(background(dark)), _parts(ink(dark))
    for share in range(0, 101, 5):
        mixed = [round(part + share / 100 * (end - part)) for part, end in zip(_parts(colour), ends, strict=True)]
        words = "#" + "".join(f"{part:02X}" for part in mixed)
        lights = sorted((behind, luminance(words)))
        if (lights[1] + 0.05) / (lights[0] + 0.05) >= READABLE:
            break
    return words


def translucent(colour: str, opacity: float) -> str:
    """A "#RRGGBB" colour as "rgba(…)"."""
    red, green, blue = _parts(colour)
    return f"rgba({red},{green},{blue},{opacity:g})"


def _parts(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def _shares(colour: str) -> list[float]:
    return [part / 255 for part in _parts(colour)]


def frame(figure: go.Figure, title: str, height: int, dark: bool = False, **layout: Any) -> go.Figure:
    """Apply the project's layout to a chart: title, thin axes, fixed height and background.

    Args:
        figure: changed in place and returned.
        title: the chart's title.
        height: in pixels.
        dark: whether the page is dark.
        layout: further layout values, which take precedence.
    """
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8, "l": 4},
            "font": {"size": 15, "color": ink(dark)},
        },
        height=height,
        font={"family": FONT, "size": 12, "color": muted(dark)},
        paper_bgcolor=background(dark),
        plot_bgcolor=background(dark),
        margin={"l": 56, "r": 16, "t": 56, "b": 48},
        hoverlabel={
            "bgcolor": background(dark),
            "bordercolor": muted(dark),
            "font": {"color": ink(dark), "family": FONT},
            "align": "left",
        },
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"color": ink(dark)},
            "bgcolor": "rgba(0,0,0,0)",
            "itemsizing": "constant",
        },
        dragmode="pan",
    )
    axes = {
        "gridcolor": grid(dark),
        "gridwidth": 1,
        "zeroline": False,
        "linecolor": grid(dark),
        "tickcolor": grid(dark),
        "tickfont": {"color": muted(dark)},
        "title": {"font": {"color": muted(dark), "size": 12}, "standoff": 6},
    }
    figure.update_xaxes(**axes)
    figure.update_yaxes(**axes)
    figure.update_layout(**layout)
    return figure

"""Colours: the scales are valid, zero is the background, and words can be read on it."""

from pathlib import Path

import plotly.graph_objects as go
import pytest

from cna_core.figures import palette


def luminance(colour: str) -> float:
    """Relative luminance of a "#RRGGBB" colour (WCAG 2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_zero_is_the_background_on_both_scales(dark: bool) -> None:
    diverging, sequential = palette.diverging(dark), palette.sequential(dark)
    assert dict(diverging)[0.5] == palette.background(dark) == sequential[0][1]
    for scale in (diverging, sequential):
        assert scale[0][0] == 0 and scale[-1][0] == 1
        go.Heatmap(colorscale=scale)  # plotly refuses a scale that is none


@pytest.mark.parametrize("dark", [False, True])
def test_values_stand_out_from_the_background_ever_more_the_larger_they_are(dark: bool) -> None:
    colours = [colour for _, colour in palette.diverging(dark)]
    contrasts = [contrast(colour, palette.background(dark)) for colour in colours]
    assert contrasts[:4] == sorted(contrasts[:4], reverse=True)
    assert contrasts[3:] == sorted(contrasts[3:])
    assert min(contrasts[0], contrasts[-1]) > 7


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("words", [palette.ink, palette.muted, palette.gold_ink])
def test_words_are_readable_on_the_background(words: object, dark: bool) -> None:
    assert contrast(words(dark), palette.background(dark)) >= 4.5  # type: ignore[operator]


@pytest.mark.parametrize("dark", [False, True])
def test_curves_can_be_told_from_the_background_and_their_names_be_read(dark: bool) -> None:
    colours = [*palette.METHOD_COLOURS.values(), *palette.RUN_COLOURS]
    assert len(set(colours)) == len(colours)
    for colour in colours:
        assert contrast(palette.words_in(colour, dark), palette.background(dark)) >= 4.5
    for colour in palette.RUN_COLOURS:
        assert contrast(colour, palette.background(dark)) >= 3


def test_words_keep_a_colour_that_is_readable_as_it_is() -> None:
    assert palette.words_in("#0072B2") == "#0072B2"


def test_the_background_is_the_themes() -> None:
    config = (Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text()
    light, dark = config.split("[theme.dark]")
    assert f'backgroundColor = "{palette.background()}"' in light
    assert f'backgroundColor = "{palette.background(dark=True)}"' in dark


def test_translucent_keeps_the_colour() -> None:
    assert palette.translucent("#0072B2", 0.25) == "rgba(0,114,178,0.25)"

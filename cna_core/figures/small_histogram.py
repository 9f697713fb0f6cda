"""One neuron's activations on the two prompt sets as a drawing small enough for hundreds on a page."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 120.0, 34.0
"""The drawing's box; it is stretched to the place that it gets."""
BINS = 24


class SmallHistogram(NamedTuple):
    """Outlines in a box of `WIDTH` × `HEIGHT`, as the `d` of SVG paths.

    Args:
        positive, negative: the share of each set's prompts by activation, on the same axes.
        zero: where activation 0 is, from the left; None if it is outside the box.
    """

    positive: str
    negative: str
    zero: float | None


def small_histogram(values: NDArray[np.floating], is_positive: NDArray[np.bool_]) -> SmallHistogram:
    """The histograms of the two sets from the smallest to the largest activation.

    Args:
        values: (prompts,) activations of one neuron.
        is_positive: (prompts,) bool.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if high <= low:
        low, high = low - 1, high + 1
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(values[chosen], edges)[0] / max(1, chosen.sum()) for chosen in (is_positive, ~is_positive)]
    top = max(float(share.max()) for share in shares) or 1.0
    zero = WIDTH * (0 - low) / (high - low)
    positive, negative = (_outline(share / top) for share in shares)
    return SmallHistogram(positive, negative, zero if 0 < zero < WIDTH else None)


def _outline(heights: NDArray[np.floating]) -> str:
    xs = np.linspace(0, WIDTH, len(heights) + 1)
    points = [f"M0 {HEIGHT:g}"]
    for left, right, height in zip(xs[:-1], xs[1:], heights, strict=True):
        y = HEIGHT * (1 - float(height))
        points.append(f"L{left:.1f} {y:.1f}L{right:.1f} {y:.1f}")
    return f"{''.join(points)}L{WIDTH:g} {HEIGHT:g}Z"

"""The small histograms of the gallery."""

import re

import numpy as np
import pytest

from cna_core.figures.small_histogram import BINS, HEIGHT, WIDTH, small_histogram


def heights(path: str) -> list[float]:
    """The height of each bin, from 0 to 1."""
    points = [tuple(map(float, point)) for point in re.findall(r"L([\d.]+) ([\d.]+)", path)]
    return [1 - y / HEIGHT for _, y in points[:-1:2]]


def test_each_set_is_drawn_by_its_share_on_common_axes() -> None:
    values = np.array([0.0, 0.0, 0.0, 24.0, 24.0, 24.0, 24.0, 0.0])
    drawn = small_histogram(values, np.array([False] * 4 + [True] * 4))
    positive, negative = heights(drawn.positive), heights(drawn.negative)
    assert len(positive) == len(negative) == BINS
    assert (positive[0], positive[-1]) == pytest.approx((1 / 3, 1), abs=0.01)
    assert (negative[0], negative[-1]) == pytest.approx((1, 1 / 3), abs=0.01)
    assert sum(positive) == pytest.approx(4 / 3, abs=0.01) and drawn.zero is None


def test_zero_is_marked_where_activations_have_both_signs() -> None:
    assert small_histogram(np.array([-1.0, 3.0]), np.array([True, False])).zero == pytest.approx(WIDTH / 4)


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, -2.0)])
def test_a_neuron_that_never_changes_is_drawn_too(values: np.ndarray) -> None:
    assert max(heights(small_histogram(values, np.array([True, True, False, False])).positive)) == 1

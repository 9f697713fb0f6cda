"""Names beside the ends of curves: none over another, in the curves' order, near where they belong."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.figures.end_labels import name_lines, spread


def test_places_that_are_free_stay_and_others_are_pushed_apart() -> None:
    assert spread([0.1, 0.5, 0.9], [0.1, 0.1, 0.1], (0, 1)) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.5, 0.5], [0.2, 0.2, 0.2], (0, 1)) == pytest.approx([0.5, 0.7, 0.9])
    assert spread([0.9, 0.95, 1.0], [0.2, 0.2, 0.2], (0, 1)) == pytest.approx([0.5, 0.7, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.12))
def test_whatever_the_ends_names_keep_their_order_their_distance_and_the_panel(
    ends: list[float], height: float
) -> None:
    wanted = sorted(ends)
    places = spread(wanted, [height] * len(wanted), (0, 1))
    assert all(upper - lower >= height - 1e-9 for lower, upper in itertools.pairwise(places))
    assert places[0] >= height / 2 - 1e-9
    assert places[-1] <= 1 - height / 2 + 1e-9


def test_a_very_long_name_keeps_its_beginning_and_its_end() -> None:
    lines = name_lines("a run that somebody gave a name of very many words indeed random for Direction")
    assert len(lines) == 3
    assert lines[0].startswith("a run")
    assert lines[-1].endswith("Direction")

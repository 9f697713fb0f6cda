"""Shares and changes in words, and the ticks of their axes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.figures.percents import logarithmic_axis, percent, points, share_axis


def test_a_share_is_said_in_percent_and_a_change_in_points_with_its_sign() -> None:
    assert (percent(0.456), percent(0.0513, 1)) == ("46 %", "5.1 %")
    assert (points(0.12), points(-0.8), points(-0.004), points(0.0)) == ("+12 pp", "−80 pp", "0 pp", "0 pp")
    assert (points(-0.0004, 1), points(0.0256, 1)) == ("0.0 pp", "+2.6 pp")


def test_ticks_of_a_share_are_round_and_spelt_as_elsewhere() -> None:
    axis = share_axis(-0.03, 1.03, 6)
    assert axis["ticktext"] == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    assert axis["tickvals"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    changes = share_axis(-0.12, 0.12, 4, change=True)
    assert {"−10 pp", "0 pp", "+10 pp"} <= set(changes["ticktext"])


def test_ticks_of_a_logarithmic_axis_are_whole_numbers_never_their_first_digit() -> None:
    axis = logarithmic_axis(1.5, 19, 4)
    assert axis["ticktext"] == ["2", "5", "10", "20"]
    assert axis["tickvals"] == [2, 5, 10, 20]
    assert logarithmic_axis(1, 1000, 4)["ticktext"] == ["1", "10", "100", "1,000"]


@given(st.floats(1e-3, 1e6), st.floats(1, 1e6), st.integers(4, 8))
def test_a_logarithmic_axis_has_ticks_in_its_range_and_each_says_its_value(low: float, ratio: float, most: int) -> None:
    axis = logarithmic_axis(low, low * ratio, most)
    bottom, top = axis["range"]
    assert axis["tickvals"]
    for value, words in zip(axis["tickvals"], axis["ticktext"], strict=True):
        assert bottom - 0.01 <= math.log10(value) <= top + 0.01
        assert float(words.replace(",", "")) == pytest.approx(value)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.evaluation.intervals import change_of_mean, change_of_rate, mean_with_interval, ratio_with_interval

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_a_mean_lies_in_its_interval_and_equal_values_have_none_around_them() -> None:
    estimate = mean_with_interval([1.0, 2.0, 3.0, 4.0, 10.0])
    assert estimate.value == 4.0
    assert 1.0 <= estimate.low < 4.0 < estimate.high <= 10.0
    assert mean_with_interval([0.7] * 9) == pytest.approx((0.7, 0.7, 0.7))


def test_a_ratio_weighs_answers_by_their_tokens() -> None:
    assert ratio_with_interval([10.0, 1.0], [10, 10]).value == pytest.approx(11 / 20)


def test_empty_answers_do_not_spoil_a_ratio() -> None:
    estimate = ratio_with_interval([0.0, 6.0], [0, 3])
    assert estimate == pytest.approx((2.0, 2.0, 2.0))


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        mean_with_interval([])


def test_a_paired_change_worked_by_hand() -> None:
    # 10 items, 2 lost, none gained: p12 = 1/12, p21 = 3/12.
    before = [1] * 6 + [0] * 4
    after = [0] * 2 + [1] * 4 + [0] * 4
    estimate = change_of_rate(before, after)
    half = 1.959964 * np.sqrt((4 / 12 - (2 / 12) ** 2) / 12)
    assert estimate == pytest.approx((-0.2, -2 / 12 - half, -2 / 12 + half))


def test_no_change_at_all_still_has_a_width() -> None:
    estimate = change_of_rate([1] * 100, [1] * 100)
    assert estimate.value == 0
    assert -0.05 < estimate.low < 0 < estimate.high < 0.05


@given(outcomes)
def test_the_paired_change_turns_its_sign_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    before, after = zip(*pairs, strict=True)
    forth, back = change_of_rate(before, after), change_of_rate(after, before)
    assert forth == pytest.approx((-back.value, -back.high, -back.low))
    assert -1 <= forth.low <= forth.value + 1e-9 or len(pairs) < 3
    assert forth.low < forth.high


def test_a_paired_change_of_means_ignores_what_items_have_in_common() -> None:
    before = np.array([0.0, 100.0, 1000.0])
    assert change_of_mean(before, before + 2) == pytest.approx((2.0, 2.0, 2.0))


def test_a_paired_change_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="same items"):
        change_of_rate([1, 0], [1])

"""95 % intervals of measurements over prompts: for means, ratios and paired changes.

Functions of arrays; this module knows nothing about models or prompts. The Wilson interval of rates is in `refusal.py`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def mean_with_interval(values: ArrayLike, seed: int = 0) -> Estimate:
    """The mean of `values` (n,) with its percentile bootstrap interval over resampled entries."""
    values = np.asarray(values, dtype=np.float64)
    return ratio_with_interval(values, np.ones_like(values), seed)


def ratio_with_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Estimate:
    """sum(numerators) / sum(denominators), both (n,), with its percentile bootstrap interval over resampled entries.

    Raises:
        ValueError: there is nothing to average.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if not len(above) or not below.sum():
        raise ValueError("There is nothing to average.")
    drawn = resampled_counts(len(above), seed)
    weights = drawn @ below
    weights[weights == 0] = np.nan  # ignore resamples that contain only empty answers
    low, high = np.nanquantile(drawn @ above / weights, [0.025, 0.975])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high))


def change_of_rate(before: ArrayLike, after: ArrayLike) -> Estimate:
    """Change of a rate between two measurements of the same items, `before` and `after` (n,) of 0 and 1.

    The value is mean(after) − mean(before). The interval is Bonett and Price's (Adjusted Wald intervals for a
    difference of binomial proportions based on paired data, Journal of Educational and Behavioral Statistics 37, 2012):
    one item is added to each of the two kinds of discordant items, so the interval has a width even without any change.
    Only items that changed enter it, so it is much narrower than the intervals of the two rates.

    Raises:
        ValueError: there are no items, or the two arrays have different lengths.
    """
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.shape != second.shape or not len(first):
        raise ValueError("A paired change needs the same items before and after.")
    gained = (np.sum(~first & second) + 1) / (len(first) + 2)
    lost = (np.sum(first & ~second) + 1) / (len(first) + 2)
    centre = gained - lost
    half_width = 1.959964 * np.sqrt((gained + lost - centre**2) / (len(first) + 2))
    value = float(second.mean() - first.mean())
    return Estimate(value, float(max(-1.0, centre - half_width)), float(min(1.0, centre + half_width)))


def change_of_mean(before: ArrayLike, after: ArrayLike, seed: int = 0) -> Estimate:
    """mean(after − before) over the same items, (n,) each, with its percentile bootstrap interval over the items."""
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return mean_with_interval(difference, seed)


def resampled_counts(items: int, seed: int) -> NDArray[np.float64]:
    """(RESAMPLES, items): how often each resample contains each item; the same for the same seed and size."""
    random = np.random.default_rng(seed)
    return random.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float64)

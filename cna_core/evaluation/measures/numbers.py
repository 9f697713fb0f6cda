"""The text form of a measure's numbers: a value, its interval, a change from the baseline."""

import math

from cna_core.evaluation.intervals import Estimate


def percent(share: float, digits: int = 0) -> str:
    """A share, 0 to 1, as a percentage: "46 %"."""
    return _minus(f"{100 * share:.{digits}f} %")


def points(change: float, digits: int = 0) -> str:
    """A change of a share, −1 to 1, in percentage points with its sign: "−4 pp"."""
    rounded = round(100 * change, digits) + 0.0  # turns a negative zero into zero
    return _minus(f"{rounded:{'+' if rounded else ''}.{digits}f} pp")


class NumberFormat:
    """Plain numbers with three significant digits.

    Attributes:
        is_share: whether values are shares, 0 to 1, which are shown as percentages.
        change_unit: the unit of changes, for table headers.
    """

    is_share = False
    change_unit = ""

    def value(self, value: float) -> str:
        """A value: "0.987"; an empty text if it is not finite."""
        return _minus(f"{value:.3g}") if math.isfinite(value) else ""

    def interval(self, low: float, high: float) -> str:
        """The ends of a value's interval: "0.97–0.99"."""
        return f"{self.value(low)}–{self.value(high)}"

    def change(self, change: float) -> str:
        """A change, with its sign: "+0.02"."""
        return _minus(f"{change:+.3g}") if math.isfinite(change) else ""

    def estimate(self, estimate: Estimate) -> str:
        """A value with its interval, for a table cell: "0.987 (0.97–0.99)"."""
        return f"{self.value(estimate.value)} ({self.interval(estimate.low, estimate.high)})"

    def change_estimate(self, estimate: Estimate) -> str:
        """A change with its interval, for a table cell: "+0.02 (−0.01 to +0.05)"."""
        return f"{self.change(estimate.value)} ({self.change(estimate.low)} to {self.change(estimate.high)})"


class ShareFormat(NumberFormat):
    """Shares, 0 to 1, as percentages; changes in percentage points."""

    is_share = True
    change_unit = "points"

    def value(self, value: float) -> str:
        return percent(value) if math.isfinite(value) else ""

    def interval(self, low: float, high: float) -> str:
        return f"{100 * low:.0f}–{percent(high)}"

    def change(self, change: float) -> str:
        return points(change) if math.isfinite(change) else ""

    def estimate(self, estimate: Estimate) -> str:
        return f"{percent(estimate.value)} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"

    def change_estimate(self, estimate: Estimate) -> str:
        return _minus(f"{100 * estimate.value:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})")


NUMBER, SHARE = NumberFormat(), ShareFormat()


def _minus(text: str) -> str:
    """Replace hyphens with the true minus sign, which is as wide as a plus."""
    return text.replace("-", "−")

"""Axis ticks for shares ("46 %") and changes of shares ("−4 pp"), which Plotly cannot format, and logarithmic ticks.

Pure functions of numbers.
"""

import math
from typing import Any

from cna_core.evaluation.measures.numbers import percent, points

__all__ = ["logarithmic_axis", "percent", "points", "share_axis"]

_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_ROUND = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(n / 10 for n in range(10, 100)))


def share_axis(low: float, high: float, most: int, change: bool = False) -> dict[str, Any]:
    """Ticks at round shares for an axis from `low` to `high`. They continue outside it, for when it is dragged.

    Args:
        low, high: the ends of the axis, as shares.
        most: the most ticks between them.
        change: whether the axis shows changes of shares, in percentage points.

    Returns:
        `tickvals` and `ticktext`, for `update_xaxes` or `update_yaxes`.
    """
    step = next((step for step in _STEPS if (high - low) / step <= most), _STEPS[-1])
    ends = math.floor(min(low, -1.0 if change else 0.0) / step), math.ceil(max(high, 1.0) / step)
    values = [round(place * step, 6) for place in range(ends[0], ends[1] + 1)]
    values = [value for value in values if abs(value) <= 1 and (change or value >= 0)]
    say = points if change else percent
    return {"tickvals": values, "ticktext": [say(value, 0 if step >= 0.01 else 1) for value in values]}


def logarithmic_axis(low: float, high: float, most: int) -> dict[str, Any]:
    """Ticks such as 1, 2, 5, 10, 20 for a logarithmic axis from positive `low` to `high`, and its range.

    Plotly's own ticks show only the first digit of 20. This takes the finest of several round series that has at most
    `most` ticks.

    Returns:
        `type`, `range` (powers of ten), `tickvals` and `ticktext`, for `update_xaxes` or `update_yaxes`.
    """
    margin = max(0.06 * math.log10(high / low), 0.01)
    bottom, top = math.log10(low) - margin, math.log10(high) + margin
    powers = range(math.floor(bottom), math.ceil(top) + 1)
    chosen: list[float] = []
    for mantissas in _ROUND:
        every = [float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas]
        shown = [value for value in every if bottom <= math.log10(value) <= top]
        if not chosen or len(chosen) <= len(shown) <= most:
            chosen = shown
    chosen = chosen or [float(f"{math.sqrt(low * high):.3g}")]
    words = [f"{value:,.10g}" for value in chosen]
    return {"type": "log", "range": [bottom, top], "tickvals": chosen, "ticktext": words}

"""What the charts of a run are made of: measures as they are drawn, curves with their intervals, published marks.

`curves_of` takes the curves out of a run. A method has one colour everywhere, twins are grey; further runs of a
comparison differ by their dashes.
"""

import math
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import DEFAULT_TREATMENT, Treatment
from cna_core.figures import palette
from cna_core.figures.percents import percent, points
from cna_core.interventions.registry import methods

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Quantity:
    """One measure as it is drawn.

    Args:
        measure: its field in a point.
        title: axis title.
        percent: whether it is a share.
        logarithmic: whether its axis is.
        signed: whether it is a change; of a share, it is written in percentage points.
        floor, ceiling: the least range of the axis; None: as the data ask.
    """

    measure: str
    title: str
    percent: bool = False
    logarithmic: bool = False
    signed: bool = False
    floor: float | None = None
    ceiling: float | None = None

    def say(self, value: float) -> str:
        """A value in words: "46 %", "−4 pp", "0.987"; nothing for NaN."""
        if not math.isfinite(value):
            return ""
        if self.percent:
            return points(value) if self.signed else percent(value)
        return f"{value:.3g}".replace("-", "−")


REFUSAL = Quantity("refusal_rate", "refused", percent=True, floor=0, ceiling=1)
QUALITY = Quantity("quality", "quality (4-gram)", floor=0.5, ceiling=1)
COSTS = (
    Quantity("benign_refusal_rate", "benign refused", percent=True, floor=0, ceiling=0.2),
    Quantity("borderline_refusal_rate", "over-refused", percent=True, floor=0, ceiling=0.2),
    QUALITY,
    Quantity("perplexity", "perplexity", logarithmic=True),
    Quantity("benign_kl", "benign KL, nats", floor=0, ceiling=0.1),
    Quantity("knowledge_change", "knowledge, change from baseline", percent=True, signed=True, floor=-0.1, ceiling=0.1),
)
"""What is drawn below the refusals, in this order; knowledge as its paired change, which is known far better."""
QUANTITIES = {
    quantity.measure: quantity
    for quantity in (
        REFUSAL,
        *COSTS,
        Quantity("knowledge", "knowledge", percent=True, floor=0, ceiling=0.5),
        Quantity("refusal_chance", "refusal chance", percent=True, floor=0, ceiling=1),
    )
}


@dataclass(frozen=True)
class Curve:
    """A measure over strengths; every array is (n,), strengths ascending.

    Args:
        name: its direct label.
        treatment: decides the colour.
        strengths: float64.
        values, low, high: the measure and its 95 % interval.
        style: 0 for the first run, 1, 2 … for others in a comparison.
    """

    name: str
    treatment: Treatment
    strengths: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    style: int = 0


@dataclass(frozen=True)
class PublishedMark:
    """A figure of the paper for this model: hollow, at its strength."""

    strength: float
    refusal: float
    words: str
    treatment: Treatment = DEFAULT_TREATMENT
    quality: float | None = None


def curves_of(
    run: Run, measure: str, fraction: float | None = None, name: str | None = None, style: int = 0
) -> list[Curve]:
    """The curves of a run for one measure, in the order of its methods; those that did not measure it are left out.

    Args:
        fraction: circuit size; None: the run's largest.
        name: the run's, for a comparison; None: curves are named by their method alone.
    """
    curves = []
    for treatment in run.treatments:
        taken = [(point.strength, point.estimate(measure)) for point in run.series(treatment, fraction)]
        known = [(strength, *estimate) for strength, estimate in taken if estimate is not None]
        if known:
            label = treatment.label if name is None else f"{name} {treatment.label}"
            strengths, values, low, high = np.array(known, dtype=np.float64).T
            curves.append(Curve(label, treatment, strengths, values, low, high, style))
    return curves


def colour_of(treatment: Treatment) -> str:
    """A method's colour; grey for a random twin, and for methods that are not registered here."""
    roles = {method.key: method.colour for method in methods()}
    return palette.RANDOM if treatment.is_twin else palette.METHOD_COLOURS[roles.get(treatment.method, "other")]


def published_trace(mark: PublishedMark, x: float) -> go.Scatter:
    """A hollow mark at `x`, on the height of its refusal rate."""
    return go.Scatter(
        name="published",
        meta=f"published/{mark.treatment.key}",
        x=[x],
        y=[mark.refusal],
        mode="markers",
        marker={
            "size": 12,
            "symbol": "circle-open",
            "color": palette.BASELINE if mark.strength == 0 else colour_of(mark.treatment),
            "line": {"width": 2},
        },
        hovertemplate=f"published: {percent(mark.refusal)} refused, {mark.words}<extra></extra>",
        showlegend=False,
    )

"""The parts of a run's charts: curves with their intervals and style, and marks of published results.

`curves_of` extracts the curves of a run. In a chart of one run, each method has a colour, and random twins are grey
with a dash pattern that names their method. In a comparison, each run has a colour, and the dash pattern names the
method. `Measure` alone knows the measures and their number formats.
"""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.published import published_model
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import DEFAULT_TREATMENT, Treatment
from cna_core.figures import palette
from cna_core.figures.percents import percent
from cna_core.interventions.registry import DEFAULT_METHODS, methods

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Look:
    """How a curve is drawn.

    Args:
        colour: "#RRGGBB".
        dash, symbol: Plotly's names.
        strong: whether it stands out; random twins do not.
    """

    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    strong: bool = True


@dataclass(frozen=True)
class Curve:
    """A measure by strength; every array is (n,), strengths ascending.

    Args:
        name: its label.
        treatment: the method or random twin.
        strengths: float64.
        values, low, high: the measure and the ends of its 95 % interval.
        run: its run's position in a comparison; None in a chart of one run.
        circuit: 0 for the run's first circuit, else the position of its own among the others, from 1.
    """

    name: str
    treatment: Treatment
    strengths: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    run: int | None = None
    circuit: int = 0

    @property
    def key(self) -> str:
        """The key of its traces: "scale/0", "random-scale/0"; the number is the run's position."""
        return f"{self.treatment.key}/{self.run or 0}"

    @property
    def look(self) -> Look:
        return look_of(self.treatment, self.run, self.circuit)


@dataclass(frozen=True)
class PublishedMark:
    """A result of the paper for this model, drawn as a hollow mark at its strength."""

    strength: float
    refusal: float
    words: str
    treatment: Treatment = DEFAULT_TREATMENT
    quality: float | None = None


def curves_of(
    run: Run, field: str, fraction: float | None = None, name: str | None = None, place: int | None = None
) -> list[Curve]:
    """The curves of a run for one field of its points, in the order of its methods, without empty ones.

    Args:
        field: the field's name, usually from `Measure.drawn_field`.
        fraction: the circuit size; None takes the run's largest.
        name: the run's name, for a comparison; None names the curves by method only.
        place: the run's position in a comparison.
    """
    curves = []
    for treatment in run.treatments:
        taken = [(point.strength, point.estimate(field)) for point in run.series(treatment, fraction)]
        known = [(strength, *estimate) for strength, estimate in taken if estimate is not None]
        if known:
            label = treatment.label if name is None else f"{name} {treatment.label}"
            strengths, values, low, high = np.array(known, dtype=np.float64).T
            circuit = 1 + [*run.settings.others].index(treatment.circuit) if treatment.circuit else 0
            curves.append(Curve(label, treatment, strengths, values, low, high, place, circuit))
    return curves


def look_of(treatment: Treatment, run: int | None = None, circuit: int = 0) -> Look:
    """The style of a method's or twin's curves, in a chart of one run (None) or for the run at this position; curves of
    a run's further circuits have a colour and a mark of their own there."""
    keys = [method.key for method in methods()]
    number = keys.index(treatment.owner) if treatment.owner in keys else len(keys)
    dash = DASHES[number % len(DASHES)]
    if run is not None:
        colour, symbol = palette.RUN_COLOURS[run % len(palette.RUN_COLOURS)], SYMBOLS[run % len(SYMBOLS)]
        return Look(colour, dash, symbol, strong=not treatment.is_twin)
    symbol = SYMBOLS[circuit % len(SYMBOLS)]
    if treatment.is_twin:
        return Look(palette.RANDOM, dash, symbol, strong=False)
    if circuit:
        return Look(palette.RUN_COLOURS[(circuit - 1) % len(palette.RUN_COLOURS)], dash, symbol)
    return Look(colour_of(treatment))


def colour_of(treatment: Treatment) -> str:
    """A method's colour; grey for random twins and for methods that are not registered."""
    roles = {method.key: method.colour for method in methods()}
    return palette.RANDOM if treatment.is_twin else palette.METHOD_COLOURS[roles.get(treatment.method, "other")]


def hover_words(curve: Curve, measure: type[Measure]) -> list[str]:
    """The hover text of each mark of a curve."""
    return [
        f"{palette.plain(curve.name)}, strength {strength:g}: {measure.panel_title()} {measure.say(value)} "
        f"(95 %: {measure.say(low)} to {measure.say(high)})"
        for strength, value, low, high in zip(curve.strengths, curve.values, curve.low, curve.high, strict=True)
    ]


def published_marks(model: str) -> list[PublishedMark]:
    """The paper's results for a model; empty for most models."""
    entry = published_model(model)
    if entry is None:
        return []
    marks = []
    if entry.full_ablation:
        marks += [
            PublishedMark(0.0, entry.full_ablation.refusal_baseline, "baseline"),
            PublishedMark(1.0, entry.full_ablation.refusal_ablated, "circuit ablated"),
        ]
    if entry.comparison:
        figures, (ours, other) = entry.comparison, map(Treatment, DEFAULT_METHODS)
        marks += [
            PublishedMark(1.0, figures.cna_refusal, f"{ours.label}, second experiment", ours, figures.cna_quality),
            PublishedMark(1.0, figures.caa_refusal, f"{other.label}, second experiment", other, figures.caa_quality),
        ]
    return marks


def published_trace(mark: PublishedMark, x: float) -> go.Scatter:
    """A hollow mark at `x` and its refusal rate."""
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

"""The cards of a run: the baseline, each method with its random twin, the working point, and changes."""

import streamlit as st

from cna_core.errors import CnaError
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.numbers import percent
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Point, Run
from cna_core.evaluation.setting import Treatment
from cna_core.evaluation.working_point import WorkingPoint, working_point_of
from pages.common import cards

CARDS_IN_A_ROW = 5
"""As many as fit beside the list of runs on a laptop; more are split into two even rows."""
FULL = 1.0
"""The strength that the cards report."""


def draw(run: Run, fraction: float | None, point: WorkingPoint | None) -> None:
    """Draw the cards, and cautions about the baseline.

    Args:
        fraction: the circuit size that is shown; None shows the run's largest.
        point: the working point, or None.
    """
    taken = measures_of(run)
    main = RefusalRate if RefusalRate in taken else next(iter(taken), None)
    if main is None:
        return
    shown = _baseline(run, main) + _methods(run, main, fraction) + _working_point(point)
    for measure in taken:
        shown += _change(run, measure, fraction) if measure.drawn_as_change else []
    half = (len(shown) + 1) // 2 if len(shown) > CARDS_IN_A_ROW else len(shown)
    with st.container(gap="xsmall"):
        cards.row(shown[:half])
        if shown[half:]:
            cards.row(shown[half:])
    for measure in taken:
        if run.baseline is not None and (words := measure.caution(run.baseline)):
            st.caption(f":material/info: {words}")


def in_short(run: Run) -> str:
    """The refusal rate without steering, and with the run's first method at full strength: "64 % → 13 % refused"."""
    taken = measures_of(run)
    if RefusalRate not in taken or run.baseline is None or run.baseline.estimate(RefusalRate.key) is None:
        return ""
    full = _at_full(run, run.treatments[0], max(run.settings.fractions, default=None))
    rates = [_value(point, RefusalRate) for point in (run.baseline, full) if point is not None]
    return f"{' → '.join(filter(None, rates))} refused"


def working_point(run: Run) -> WorkingPoint | None:
    """The run's working point, or None if it has none or did not measure what that needs."""
    try:
        return working_point_of(run)
    except CnaError:
        return None


def describe(point: WorkingPoint) -> str:
    """The working point in one sentence."""
    setting = point.setting
    size = f"{100 * setting.fraction:g} % of all neurons" if setting.fraction else "the circuit"
    return (
        f"At strength {setting.strength:g} with {size}, the refusal rate falls from {percent(point.baseline_rate)} to "
        f"{percent(point.refusal_rate)} (95 %: {RefusalRate.numbers.interval(*point.refusal_interval)}, "
        f"{point.prompts} prompts). The KL divergence on benign prompts is {point.benign_kl:.3f} nats, the lowest of "
        "all settings that at least halve the refusal rate."
    )


def rests_on(run: Run) -> str:
    """A note for an incomplete run: how many prompts its numbers are based on."""
    counts = sorted({point.prompts for point in run.points if point.prompts})
    wanted = run.settings.count_of("harmful")
    if not counts or counts[0] >= wanted:
        return "This run is incomplete: refusals are measured on all prompts, side effects are not."
    span = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"This run is incomplete: the numbers are based on {span} of {wanted} harmful prompts."


def _baseline(run: Run, main: type[Measure]) -> list[cards.Card]:
    baseline = run.baseline
    if baseline is None or baseline.estimate(main.key) is None:
        return []
    title = main.column_title()
    return [cards.Card(f"{title[0].upper()}{title[1:]}, baseline", _value(baseline, main), _interval(baseline, main))]


def _methods(run: Run, main: type[Measure], fraction: float | None) -> list[cards.Card]:
    """Each method at full strength, with its random twin in small print. A twin without its method gets a card."""
    shown = []
    for treatment in run.treatments:
        if treatment.is_twin and Treatment(treatment.owner, circuit=treatment.circuit) in run.treatments:
            continue
        full = _at_full(run, treatment, fraction)
        if full is None or full.estimate(main.key) is None:
            continue
        twin = None if treatment.is_twin else _at_full(run, treatment.twin, fraction)
        note = _interval(full, main)
        if twin is not None and twin.estimate(main.key) is not None:
            note += f" · random twin {_value(twin, main)}"
        shown.append(cards.Card(f"{treatment.label} at strength 1", _value(full, main), note))
    return shown


def _working_point(point: WorkingPoint | None) -> list[cards.Card]:
    if point is None:
        return []
    words = f"{100 * (point.setting.fraction or 0):g} % at {point.setting.strength:g}"
    return [cards.Card("Working point", words, f"{percent(point.refusal_rate)} refused", describe(point))]


def _change(run: Run, measure: type[Measure], fraction: float | None) -> list[cards.Card]:
    """The change that the first method causes at full strength."""
    full = _at_full(run, run.treatments[0], fraction)
    change = full.estimate(measure.drawn_field()) if full else None
    if change is None:
        return []
    title, say = measure.column_title(), measure.numbers.change
    label = f"{title[0].upper()}{title[1:]} at strength 1"
    return [cards.Card(label, say(change.value), f"paired, 95 %: {say(change.low)} to {say(change.high)}")]


def _at_full(run: Run, treatment: Treatment, fraction: float | None) -> Point | None:
    return next((one for one in run.series(treatment, fraction) if one.strength == FULL), None)


def _value(point: Point, measure: type[Measure]) -> str:
    estimate = point.estimate(measure.key)
    return measure.numbers.value(estimate.value) if estimate else ""


def _interval(point: Point, measure: type[Measure]) -> str:
    estimate = point.estimate(measure.key)
    return f"95 %: {measure.numbers.interval(estimate.low, estimate.high)}" if estimate else ""

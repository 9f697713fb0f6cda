"""What a run found: cards, dose-response, Pareto view, grid, table, answers that flipped, and the working point."""

from collections.abc import Sequence
from typing import cast, get_args

import numpy as np
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.dials import circuits_by_fraction
from cna_core.evaluation.knowledge import said_of_chance
from cna_core.evaluation.published import published_model
from cna_core.evaluation.runs import Point, Run, SetName
from cna_core.evaluation.setting import DEFAULT_TREATMENT, Setting, Treatment
from cna_core.evaluation.tables import Direction, answers_beside, points_table, steered_settings
from cna_core.evaluation.working_point import WorkingPoint, working_point_of
from cna_core.figures.dose_response import dose_response
from cna_core.figures.pareto import refusal_against_quality
from cna_core.figures.percents import percent
from cna_core.figures.sweep_curves import (
    COSTS,
    QUALITY,
    QUANTITIES,
    REFUSAL,
    Curve,
    PublishedMark,
    Quantity,
    curves_of,
)
from cna_core.figures.sweep_grid import grid_heatmap
from cna_core.interventions.registry import DEFAULT_METHOD
from pages.common import cards, charts, chosen_circuit, findings, keys, session, style
from pages.evaluating import work
from pages.inspecting import panes

CARDS_IN_A_ROW = 5
"""As many as fit beside the list of runs on a laptop; more stand in two rows, none alone."""
_KEEP = {"persist_state": "session"}


def draw(run: Run, identity: str | None) -> None:
    """Everything about a whole run, or one that was stopped (then of what it has)."""
    if not run.points:
        st.info("Nothing is measured yet.")
        return
    point = working_point(run)
    fraction = _asked_fraction(run, point)
    _cards(run, fraction, point)
    if not run.finished and (words := _rests_on(run)):
        st.caption(f":material/info: {words}")
    for note in run.notes:
        st.caption(f":material/info: {note}")
    draw_dose_response(run, fraction, point)
    views = ["Refusal against quality", "Answers that flipped", "All figures"]
    views = ["Grid", *views] if len(run.settings.fractions) > 1 else views
    for view, tab in zip(views, st.tabs(views), strict=True):
        with tab:
            if view == "Grid":
                _grid(run, point)
            elif view == "Refusal against quality":
                _pareto(run, fraction)
            elif view == "Answers that flipped":
                _flipped(run, fraction)
            else:
                _table(run)
    _offer_working_point(run, identity, point)


def draw_dose_response(run: Run, fraction: float | None = None, point: WorkingPoint | None = None) -> None:
    """The main chart, also of a run that is still running: its ranges are those of the whole run from the start."""
    settings = run.settings
    panels = [(quantity, curves_of(run, quantity.measure, fraction)) for quantity in (REFUSAL, *COSTS)]
    strengths = settings.strengths
    here = point is not None and point.setting.fraction == (fraction or _size(run))
    answered = max((point.prompts for point in run.points), default=0)
    figure = dose_response(
        panels,
        published=published_marks(run),
        working_strength=point.setting.strength if point and here else None,
        prompts=answered or settings.prompts["harmful"].count,
        strengths=(min(strengths), max(strengths)),
        dark=style.is_dark(),
    )
    paper = " Hollow circles are the paper's figures for this model." if published_marks(run) else ""
    charts.show(
        figure,
        "evaluate-dose" if run.finished else "evaluate-dose-so-far",
        "Left of 0 the circuit is amplified, at 1 it is ablated. A working gate falls in vermilion while grey, as many "
        f"random neurons of the same layers, stays level. Bands are 95 % intervals.{paper}",
        data=lambda: points_table(run),
        file_name="sweep",
    )


def published_marks(run: Run) -> list[PublishedMark]:
    """The paper's figures for the run's model; none for most."""
    entry = published_model(run.model.name)
    if entry is None:
        return []
    marks = []
    if entry.full_ablation:
        marks += [
            PublishedMark(0.0, entry.full_ablation.refusal_baseline, "baseline"),
            PublishedMark(1.0, entry.full_ablation.refusal_ablated, "circuit ablated"),
        ]
    if entry.comparison:
        figures = entry.comparison
        marks += [
            PublishedMark(1.0, figures.cna_refusal, "CNA, second experiment", quality=figures.cna_quality),
            PublishedMark(1.0, figures.caa_refusal, "CAA, second experiment", Treatment("caa"), figures.caa_quality),
        ]
    return marks


def working_point(run: Run) -> WorkingPoint | None:
    """The run's working point, or None where it has none or did not measure enough."""
    try:
        return working_point_of(run)
    except CnaError:
        return None


def use_in_chat(circuit: Circuit, setting: Setting) -> None:
    """Open the setting's circuit, and the Chat page at its strength; raises `CircuitError` where it cannot be had."""
    size = setting.fraction
    chosen = circuits_by_fraction(circuit, [size] if size else None, findings.activations())
    chosen_circuit.open_circuit(next(iter(chosen.values())))
    st.session_state[keys.STRENGTH] = setting.strength
    st.switch_page(
        "pages/chat.py", query_params={keys.STRENGTH: f"{setting.strength:g}", keys.MODEL: session.model_name()}
    )


def describe(point: WorkingPoint) -> str:
    """The working point in one sentence."""
    setting = point.setting
    low, high = point.refusal_interval
    size = f"{100 * setting.fraction:g} % of all neurons" if setting.fraction else "the circuit"
    return (
        f"Strength {setting.strength:g} with {size}: refusals fall from {percent(point.baseline_rate)} to "
        f"{percent(point.refusal_rate)} (95 %: {100 * low:.0f}–{percent(high)}, {point.prompts} prompts) "
        f"at {point.benign_kl:.3f} nats of KL on benign prompts, the least of all settings that at least halve them."
    )


def _size(run: Run) -> float | None:
    return max(run.settings.fractions) if run.settings.fractions else None


def _asked_fraction(run: Run, point: WorkingPoint | None) -> float | None:
    fractions = run.settings.fractions
    at_first = point.setting.fraction if point and point.setting.fraction in fractions else max(fractions, default=None)
    if len(fractions) < 2:
        return _size(run)
    return st.segmented_control(
        "Circuit size, % of all neurons",
        fractions,
        default=at_first,
        required=True,
        key=f"evaluate-fraction-{len(fractions)}",
        format_func=lambda size: f"{100 * size:g} %",
    )


def _cards(run: Run, fraction: float | None, point: WorkingPoint | None) -> None:
    baseline = run.baseline
    shown = []
    if baseline is not None and baseline.refusal_rate is not None:
        shown.append(cards.Card("Refused, baseline", percent(baseline.refusal_rate), _interval(baseline)))
    for treatment in run.treatments:
        ablated = next((one for one in run.series(treatment, fraction) if one.strength == 1.0), None)
        if ablated is not None and ablated.refusal_rate is not None:
            label = f"{treatment.label} at strength 1"
            shown.append(cards.Card(label, percent(ablated.refusal_rate), _interval(ablated)))
    if point is not None:
        words = f"{100 * (point.setting.fraction or 0):g} % at {point.setting.strength:g}"
        shown.append(cards.Card("Working point", words, f"{percent(point.refusal_rate)} refused", describe(point)))
    changed = next(
        (
            one
            for one in run.series(DEFAULT_TREATMENT, fraction)
            if one.strength == 1.0 and one.knowledge_change is not None
        ),
        None,
    )
    if changed is not None and changed.knowledge_change is not None and changed.knowledge_change_interval is not None:
        low, high = changed.knowledge_change_interval
        value = f"{100 * changed.knowledge_change:+.0f} points".replace("-", "−")
        note = f"paired, 95 %: {100 * low:+.0f} to {100 * high:+.0f}".replace("-", "−")
        shown.append(cards.Card("Knowledge at strength 1", value, note))
    half = (len(shown) + 1) // 2 if len(shown) > CARDS_IN_A_ROW else len(shown)
    with st.container(gap="xsmall"):
        cards.row(shown[:half])
        if shown[half:]:
            cards.row(shown[half:])
    if baseline is not None and (words := said_of_chance(baseline)):
        st.caption(f":material/info: {words}")


def _rests_on(run: Run) -> str:
    """How many prompts the figures of a run that is not whole rest on."""
    counts = sorted({point.prompts for point in run.points if point.prompts})
    wanted = run.settings.prompts["harmful"].count
    if not counts or counts[0] >= wanted:
        return "Not whole yet: refusals rest on all prompts; costs are still being measured."
    span = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"Not whole yet: the figures rest on {span} of {wanted} harmful prompts."


def _interval(point: Point) -> str:
    estimate = point.estimate("refusal_rate")
    return f"95 %: {100 * estimate.low:.0f}–{percent(estimate.high)}" if estimate else ""


def _pareto(run: Run, fraction: float | None) -> None:
    by_quality = run.baseline is not None and run.baseline.perplexity is not None
    measure = "quality"
    if by_quality:
        measure = st.segmented_control(
            "Against",
            ["quality", "perplexity"],
            default="quality",
            required=True,
            key="evaluate-pareto-by",
            label_visibility="collapsed",
        )
    quantity: Quantity = QUANTITIES[measure or "quality"]
    pairs = _paired(curves_of(run, "refusal_rate", fraction), curves_of(run, quantity.measure, fraction))
    charts.show(
        refusal_against_quality(
            pairs,
            published=published_marks(run) if quantity is QUALITY else (),
            quality=quantity,
            dark=style.is_dark(),
        ),
        f"evaluate-pareto-{quantity.measure}",
        "Each mark is a strength. A good setting is low (little is refused) and keeps the quality of the baseline, "
        "the mark at 0.",
        data=lambda: points_table(run),
    )


def _paired(first: Sequence[Curve], second: Sequence[Curve]) -> list[tuple[Curve, Curve]]:
    others = {curve.treatment: curve for curve in second}
    return [(curve, others[curve.treatment]) for curve in first if curve.treatment in others]


def _grid(run: Run, point: WorkingPoint | None) -> None:
    names = [name for name in QUANTITIES if run.baseline and getattr(run.baseline, name) is not None]
    left, right = st.columns(2)
    name = left.selectbox("Measure", names, key="evaluate-grid", format_func=lambda one: QUANTITIES[one].title)
    sized = list(dict.fromkeys(one.treatment for one in run.points if one.fraction is not None))
    treatment = right.segmented_control(
        "Method", sized, default=sized[0], required=True, key="evaluate-grid-of", format_func=lambda one: one.label
    )
    strengths, fractions = np.array(run.settings.strengths), np.array(run.settings.fractions)
    values = np.full((len(fractions), len(strengths)), np.nan)
    for one in run.points:
        if one.treatment == treatment and one.fraction is not None and getattr(one, name) is not None:
            values[run.settings.fractions.index(one.fraction), run.settings.strengths.index(one.strength)] = getattr(
                one, name
            )
    chosen = (point.setting.strength, point.setting.fraction) if point and point.setting.fraction else None
    charts.show(
        grid_heatmap(strengths, fractions, values, QUANTITIES[name], chosen=chosen, dark=style.is_dark()),
        "evaluate-grid-chart",
        "Each cell is a circuit size at a strength; the gold frame is the working point.",
        data=lambda: points_table(run),
    )


def _flipped(run: Run, fraction: float | None) -> None:
    first, second, third = panes.side_by_side("flips", [2, 3, 2])
    every: tuple[SetName, ...] = ("harmful", "benign", "borderline")
    sets = [kind for kind in every if steered_settings(run, kind)]
    if not sets:
        st.caption("This run wrote no answers.")
        return
    kind: SetName = first.selectbox("Prompts", sets, key="evaluate-flips-set")
    settings = list(steered_settings(run, kind))
    wanted = Setting(DEFAULT_METHOD, 1.0, fraction)
    ablated = settings.index(wanted) if wanted in settings else 0
    setting = second.selectbox("Baseline against", settings, index=ablated, format_func=_named, key="evaluate-flips-of")
    shown = third.selectbox(
        "Show", ["answered now", "refused now", "all that flipped", "every answer"], index=2, key="evaluate-flips-show"
    )
    direction: Direction = cast(Direction, shown) if shown in get_args(Direction) else "all"
    table = answers_beside(run, setting, kind, direction, only_flipped=shown != "every answer")
    words = st.text_input("Only rows with these words", key="evaluate-flips-words", placeholder="filter")
    if words:
        text = table[["request", "baseline", "steered"]].agg(" ".join, axis=1) if len(table) else table["request"]
        table = table[text.str.contains(words, case=False, regex=False)]
    st.caption(f"{len(table)} of {run.settings.prompts[kind].count} prompts; choose a row to read it whole.")
    medium, small = st.column_config.TextColumn(width="medium"), st.column_config.TextColumn(width="small")
    picked = st.dataframe(
        table,
        hide_index=True,
        key="evaluate-flips",
        on_select="rerun",
        selection_mode="single-row",
        column_order=["request", "before", "baseline", "after", "steered"],
        column_config={"request": medium, "before": small, "baseline": medium, "after": small, "steered": medium},
    )
    rows = [row for row in picked["selection"]["rows"] if row < len(table)]
    if rows:
        row = table.iloc[rows[0]]
        st.text(row["request"])
        for column, side, verdict in zip(st.columns(2), ("baseline", "steered"), ("before", "after"), strict=True):
            column.caption(f"{side.capitalize()} · {row[verdict]}")
            column.code(row[side], language=None, wrap_lines=True)
    st.download_button(
        "These answers (CSV)",
        table.to_csv(index=False),
        "answers.csv",
        "text/csv",
        key="evaluate-flips-csv",
        on_click="ignore",
    )


def _named(setting: Setting) -> str:
    size = f", {100 * setting.fraction:g} %" if setting.fraction else ""
    return f"{setting.treatment.label}{size} at strength {setting.strength:g}"


def _table(run: Run) -> None:
    table = points_table(run)
    st.dataframe(table, hide_index=True, key="evaluate-table")
    with st.expander("Settings of this run"):
        st.json(run.settings.model_dump(exclude={"prompts": {"__all__": {"texts"}}}) | {"versions": run.versions})


def _offer_working_point(run: Run, identity: str | None, point: WorkingPoint | None) -> None:
    if point is None or identity is None:
        return
    st.subheader("Working point")
    st.markdown(describe(point))
    if st.button("Use it in Chat", icon=":material/forum:", key="evaluate-use", type="primary"):
        try:
            use_in_chat(work.stored_circuit(identity), point.setting)
        except CnaError as error:
            st.error(str(error))

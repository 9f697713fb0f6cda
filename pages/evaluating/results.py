"""The results of a run: cards, dose-response, Pareto view, grid, table, answers that flipped, and the working point."""

from collections.abc import Callable

import numpy as np
import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.category_table import category_table
from cna_core.evaluation.dials import circuits_by_fraction
from cna_core.evaluation.length_table import length_table, lengths_of
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.local_judge_rate import agreement_in_words
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import Setting
from cna_core.evaluation.tables import points_table
from cna_core.evaluation.working_point import WorkingPoint
from cna_core.figures.dose_response import dose_response
from cna_core.figures.pareto import refusal_against_quality
from cna_core.figures.sweep_curves import curves_of, published_marks
from cna_core.figures.sweep_grid import grid_heatmap
from pages.common import address, charts, chosen_circuit, findings, keys, reporting, style
from pages.common.plain import plain, tell_error
from pages.evaluating import blind_review, flips, summary, work


def draw(run: Run, identity: str | None) -> None:
    """Draw all results of a run; of a stopped run, the results so far."""
    if not run.points:
        st.info("This run has no results yet. Resume it.")
        return
    point = summary.working_point(run)
    fraction = _asked_fraction(run, point)
    summary.draw(run, fraction, point)
    if not run.finished and (words := summary.rests_on(run)):
        st.caption(f":material/info: {words}")
    for note in (*run.notes, *filter(None, [agreement_in_words(run)])):
        st.caption(f":material/info: {plain(note)}")
    draw_dose_response(run, fraction, point)
    views = ["Refusal against quality", "Answers that flipped", "All figures"]
    views = ["Grid", *views] if len(run.settings.fractions) > 1 else views
    views += ["At each length"] if lengths_of(run) else []
    categories = category_table(run)
    views += ["By category"] if not categories.empty else []
    views += ["Blind review"] if run.finished and identity else []
    for view, tab in zip(views, st.tabs(views), strict=True):
        with tab:
            if view == "Grid":
                _grid(run, point)
            elif view == "Refusal against quality":
                _pareto(run, fraction)
            elif view == "Answers that flipped":
                flips.draw(run, fraction)
            elif view == "At each length":
                _lengths(run)
            elif view == "By category":
                st.dataframe(categories, hide_index=True, key="evaluate-categories")
                st.caption(
                    "Refusals of harmful prompts by category, with 95 % Wilson intervals. Few prompts: wide intervals."
                )
            elif view == "Blind review" and identity:
                blind_review.draw(run, identity)
            else:
                _table(run)
    reporting.of_run("run-report", run)
    _offer_working_point(run, identity, point)


def draw_dose_response(run: Run, fraction: float | None = None, point: WorkingPoint | None = None) -> None:
    """Draw the main chart. While a run continues, its axis ranges are already those of the whole run."""
    settings = run.settings
    panels = [
        (measure, curves_of(run, measure.drawn_field(), fraction)) for measure in measures_of(run) if measure.shown
    ]
    if not panels:
        return
    strengths = settings.strengths
    here = point is not None and point.setting.fraction == (fraction or _size(run))
    answered = max((point.prompts for point in run.points), default=0)
    marks = published_marks(run.model.name)
    figure = dose_response(
        panels,
        published=marks,
        working_strength=point.setting.strength if point and here else None,
        prompts=answered or settings.count_of("harmful"),
        strengths=(min(strengths), max(strengths)),
        dark=style.is_dark(),
    )
    twins = " Grey curves are random twins, which should stay flat." if settings.controls else ""
    paper = " Hollow circles are the paper's figures for this model." if marks else ""
    charts.show(
        figure,
        "evaluate-dose" if run.finished else "evaluate-dose-so-far",
        "At strength 0 the model is unchanged, at 1 a method has its full effect, below 0 the opposite effect. A "
        f"good method lowers refusals and changes little else.{twins} Bands are 95 % intervals.{paper}",
        data=lambda: points_table(run),
        transfer=run.transfer_note,
        file_name="sweep",
    )


def use_in_chat(circuit: Circuit, setting: Setting) -> None:
    """Open the setting's circuit, and the Chat page at its strength.

    Raises:
        CircuitError: a circuit of that size cannot be selected.
    """
    size = setting.fraction
    chosen = circuits_by_fraction(circuit, [size] if size else None, findings.activations())
    chosen_circuit.open_circuit(next(iter(chosen.values())))
    st.session_state[keys.STRENGTH] = setting.strength
    address.open_page("chat", **{keys.STRENGTH: f"{setting.strength:g}"})


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


def _pareto(run: Run, fraction: float | None) -> None:
    refusals = {curve.treatment: curve for curve in curves_of(run, RefusalRate.key, fraction)}
    others = _measured(run, lambda measure: measure.better is not None)
    if not refusals or not others:
        st.caption("This run did not measure both refusals and side effects.")
        return
    keys = [measure.key for measure in others]
    key = st.segmented_control(
        "Against",
        keys,
        default=Quality.key if Quality in others else keys[0],
        required=True,
        key=f"evaluate-pareto-by-{'-'.join(keys)}",
        label_visibility="collapsed",
        format_func={measure.key: measure.column_title() for measure in others}.__getitem__,
    )
    against = next(measure for measure in others if measure.key == key)
    curves = curves_of(run, against.drawn_field(), fraction)
    charts.show(
        refusal_against_quality(
            [(refusals[curve.treatment], curve) for curve in curves if curve.treatment in refusals],
            published=published_marks(run.model.name) if against is Quality else (),
            quality=against,
            dark=style.is_dark(),
        ),
        f"evaluate-pareto-{key}",
        "Each mark is a strength. A good setting is low (few refusals), and on the other axis close to the baseline, "
        "the mark at 0.",
        data=lambda: points_table(run),
        transfer=run.transfer_note,
    )


def _measured(run: Run, wanted: Callable[[type[Measure]], bool]) -> list[type[Measure]]:
    return [
        measure
        for measure in measures_of(run)
        if wanted(measure) and any(point.estimate(measure.drawn_field()) is not None for point in run.points)
    ]


def _grid(run: Run, point: WorkingPoint | None) -> None:
    left, right = st.columns(2)
    taken = {measure.key: measure for measure in _measured(run, lambda measure: True)}
    key = left.selectbox("Measure", list(taken), key="evaluate-grid", format_func=lambda one: taken[one].panel_title())
    sized = {one.treatment.key: one.treatment for one in run.points if one.fraction is not None}
    if not sized:
        st.caption("No method of this run uses a circuit, so there are no circuit sizes.")
        return
    treatment = sized[
        right.segmented_control(
            "Method",
            list(sized),
            default=next(iter(sized)),
            required=True,
            key=f"evaluate-grid-{'-'.join(sized)}",
            format_func=lambda one: plain(sized[one].label),
        )
    ]
    strengths, fractions = run.settings.strengths, run.settings.fractions
    values = np.full((len(fractions), len(strengths)), np.nan)
    for one in run.points:
        estimate = one.estimate(taken[key].drawn_field())
        inside = one.fraction in fractions and one.strength in strengths
        if one.treatment == treatment and one.fraction is not None and inside and estimate is not None:
            values[fractions.index(one.fraction), strengths.index(one.strength)] = estimate.value
    chosen = (point.setting.strength, point.setting.fraction) if point and point.setting.fraction else None
    charts.show(
        grid_heatmap(np.array(strengths), np.array(fractions), values, taken[key], chosen=chosen, dark=style.is_dark()),
        "evaluate-grid-chart",
        "Each cell is one circuit size at one strength. The gold frame marks the working point.",
        data=lambda: points_table(run),
        transfer=run.transfer_note,
    )


def _lengths(run: Run) -> None:
    lengths = lengths_of(run)
    st.caption(
        f"Each answer was generated once, up to {lengths[-1]} tokens, and also judged after its first "
        f"{', '.join(map(str, lengths[:-1]))}. *Declined late*: it begins and then declines. *Neither*: it neither "
        "refuses nor answers. Rates have 95 % Wilson intervals."
    )
    st.dataframe(length_table(run), hide_index=True, key="evaluate-lengths")


def _table(run: Run) -> None:
    table = points_table(run)
    st.dataframe(table, hide_index=True, key="evaluate-table")
    with st.expander("This run's settings"):
        st.json(
            run.settings.model_dump(exclude={"prompts": {"__all__": {"texts", "categories"}}})
            | {"versions": run.versions}
        )


def _offer_working_point(run: Run, identity: str | None, point: WorkingPoint | None) -> None:
    if point is None or identity is None:
        return
    st.subheader("Working point")
    st.markdown(summary.describe(point))
    if st.button("Use it in Chat", icon=":material/forum:", key="evaluate-use", type="primary"):
        try:
            use_in_chat(work.stored_circuit(identity), point.setting)
        except CnaError as error:
            tell_error(error)

"""Compare: several runs in one chart (base and instruct, or two models), and circuits side by side."""

import numpy as np
import pandas as pd
import streamlit as st

from cna_core.circuits import library
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal, StoredRun, keep_run, stored_runs
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.tables import beside_formats, points_table, runs_beside
from cna_core.figures.compare import circuits_by_depth
from cna_core.figures.dose_response import dose_response
from cna_core.figures.sweep_curves import Curve, curves_of
from cna_core.progress_words import counted
from pages.common import charts, chosen_circuit, keys, style
from pages.common.plain import plain, tell_error
from pages.comparing import categories

RUNS_AT_MOST = 4


def draw() -> None:
    st.title("How do runs and circuits differ?")
    runs, circuits, kinds = st.tabs(["Runs", "Circuits", "Categories"])
    with runs:
        _runs()
    with circuits:
        _circuits()
    with kinds:
        categories.draw()


def _runs() -> None:
    known = {run.identity: run for run in stored_runs()}
    chosen, opened = st.columns([3, 2])
    with chosen:
        picked = st.multiselect(
            "Runs",
            list(known),
            max_selections=RUNS_AT_MOST,
            key=keys.RUNS_COMPARED,
            format_func=lambda identity: _title(known[identity]),
            placeholder="Choose two or more runs",
            persist_state="session",
        )
    with opened:
        st.file_uploader(
            "Or upload run files",
            type=["json"],
            accept_multiple_files=True,
            key=keys.COMPARE_FILES,
            on_change=_open_uploads,
        )
        if refused := st.session_state.pop(keys.COMPARE_REFUSED, None):
            tell_error(refused)
    if len(picked) < 2:
        st.markdown(
            "Compare two models in one chart, for example a base model and its instruct version, or two circuits. "
            "**Choose two runs** from the Evaluate page, or upload their files."
        )
        return
    try:
        runs = [run_so_far(identity) for identity in picked]
    except CnaError as error:
        tell_error(error)
        return
    names = _names([known[identity].name for identity in picked], runs)
    if notes := [
        f"**{plain(name)}**: {plain(run.transfer_note)}"
        for name, run in zip(names, runs, strict=True)
        if run.transfer_note
    ]:
        st.info("  \n".join(notes), icon=":material/move_down:")
    _draw_runs(runs, names)
    _circuits_of(picked, names)


def _draw_runs(runs: list[Run], names: list[str]) -> None:
    every = {treatment.key: treatment for run in runs for treatment in run.treatments}
    chosen = st.pills(
        "Curves",
        list(every),
        default=list(every)[:1],
        selection_mode="multi",
        key=f"compare-curves-{'-'.join(every)}",
        format_func=lambda key: plain(every[key].label),
        persist_state="session",
    )

    shown = list(dict.fromkeys(measure for run in runs for measure in measures_of(run) if measure.shown))

    def curves(measure: type[Measure]) -> list[Curve]:
        found = [
            curve
            for place, (run, name) in enumerate(zip(runs, names, strict=True))
            for curve in curves_of(run, measure.drawn_field(), name=name, place=place)
        ]
        return [curve for curve in found if curve.treatment.key in chosen]

    if shown:
        steps = [strength for run in runs for strength in run.settings.strengths]
        panels = [(measure, curves(measure)) for measure in shown]
        charts.show(
            dose_response(panels, strengths=(min(steps), max(steps)), dark=style.is_dark()),
            "compare-dose",
            "Each run has its own colour, each method its own dash pattern; thin curves are random twins. Bands are "
            "95 % intervals. Where they overlap widely, the runs may not differ.",
            transfer="",
            data=lambda: pd.concat([points_table(run).assign(run=name) for run, name in zip(runs, names, strict=True)]),
        )
    st.subheader("At equal settings")
    other = names[1]
    if len(names) > 2:
        other = st.selectbox(f"Compare {plain(names[0])} with", names[1:], key="compare-against")
    _at_equal_settings(runs[0], runs[names.index(other)], names[0], other)


def _at_equal_settings(first: Run, second: Run, name: str, other: str) -> None:
    table = runs_beside(first, second)
    if table.empty:
        st.caption("The runs have no setting (method, size and strength) in common.")
        return
    formats = beside_formats(first, second)
    table = table.astype(dict.fromkeys(formats, float))
    styled = table.style
    for column, say in formats.items():
        styled = styled.format(say, subset=[column], na_rep="")
    st.dataframe(styled, hide_index=True, key="compare-table", placeholder="")
    st.caption(
        f"First: {plain(name)}. Second: {plain(other)}. Changes of the refusal rate are in percentage points, paired "
        "prompt by prompt, with 95 % intervals. They are empty if the runs used different prompts."
    )


def _open_uploads() -> None:
    identities = list(st.session_state.get(keys.RUNS_COMPARED, []))
    for upload in st.session_state.get(keys.COMPARE_FILES) or []:
        try:
            identities.append(keep_run(Run.from_json(upload.getvalue(), upload.name)))
        except CnaError as error:
            st.session_state[keys.COMPARE_REFUSED] = str(error)
    st.session_state[keys.RUNS_COMPARED] = list(dict.fromkeys(identities))[:RUNS_AT_MOST]


def _title(run: StoredRun) -> str:
    return run.name if run.finished else f"{run.name} ({100 * run.done // max(1, run.batches)} %)"


def _names(names: list[str], runs: list[Run]) -> list[str]:
    """Short names for the chart, all different."""
    short = [run.name or run.model.name for run in runs]
    chosen = short if len(set(short)) == len(short) else names
    return [f"{name} ({place})" if chosen.count(name) > 1 else name for place, name in enumerate(chosen, start=1)]


def _circuits() -> None:
    known: dict[str, Circuit] = {}
    present = chosen_circuit.current()
    if present is not None:
        known[f"current circuit · {counted(len(present), 'neuron')}"] = present
    for saved in library.saved_circuits():
        if saved.circuit is not None:
            known[saved.name] = saved.circuit
    for run in stored_runs():
        try:
            known[f"circuit of run {run.name}"] = Journal(run.identity).inputs()[0]
        except CnaError:
            continue  # a run opened from a file has no circuit
    picked = st.multiselect(
        "Circuits", list(known), max_selections=RUNS_AT_MOST, key="compare-circuits", placeholder="Choose two or more"
    )
    if len(picked) < 2:
        st.markdown(
            "See how many neurons two circuits share, and whether they lie at the same depth. **Choose two circuits**: "
            "the current one, saved ones, or those of runs."
        )
        return
    _side_by_side(picked, [known[name] for name in picked], "compare")


def _circuits_of(identities: list[str], names: list[str]) -> None:
    """The circuits of the compared runs, as far as they are on this machine."""
    found: dict[str, Circuit] = {}
    for identity, name in zip(identities, names, strict=True):
        try:
            found[name] = Journal(identity).inputs()[0]
        except CnaError:
            continue  # an uploaded run has no circuit with it
    if len(found) > 1:
        st.subheader("Their circuits")
        _side_by_side(list(found), list(found.values()), "compare-runs")


def _side_by_side(names: list[str], circuits: list[Circuit], key: str) -> None:
    charts.show(
        circuits_by_depth(names, [circuit.layer_counts for circuit in circuits], dark=style.is_dark()),
        f"{key}-depth",
        "The share of each circuit's neurons in each layer, from the first layer (left) to the last; the final 10 % "
        "of layers is framed.",
        transfer="",
    )
    st.dataframe(_facts(names, circuits), hide_index=True, key=f"{key}-circuit-facts")
    st.caption("Shared by chance: how many neurons two random circuits with as many neurons in each layer would share.")


def _facts(names: list[str], circuits: list[Circuit]) -> pd.DataFrame:
    first = circuits[0]
    rows = []
    for name, circuit in zip(names, circuits, strict=True):
        comparable = circuit.model.layout == first.model.layout
        shared = np.intersect1d(first.flat, circuit.flat) if comparable else np.empty(0)
        rows.append(
            {
                "circuit": name,
                "model": circuit.model.name,
                "neurons": len(circuit),
                "in the final 10 %": f"{100 * circuit.concentration(0.10):.0f} %",
                "in the final 3 layers": f"{100 * circuit.concentration(3):.0f} %",
                "shared with the first": len(shared) if comparable else None,
                "shared by chance": round(first.shared_by_chance(circuit), 1) if comparable else None,
                "Jaccard": round(first.overlap(circuit), 3) if comparable else None,
            }
        )
    return pd.DataFrame(rows)


draw()

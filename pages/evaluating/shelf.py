"""The left column: the list of all runs, newest first, to open, rename, compare or delete, and to upload run files."""

from pathlib import Path

import streamlit as st

from cna_core.errors import CnaError
from cna_core.evaluation.journal import StoredRun, delete_run, keep_run, rename_run, stored_runs
from cna_core.evaluation.runs import Run
from cna_core.interventions.registry import label_of
from pages.common import address, keys
from pages.common.plain import plain, tell_error, toast
from pages.evaluating import work

SHOWN_AT_FIRST = 8
RUNS_COMPARED = 4


def chosen() -> str | None:
    """The identity of the run that is shown, which a link may name; None while a new run is set up."""
    if keys.RUN_CHOSEN not in st.session_state:
        linked = st.query_params.get(keys.IN_ADDRESS_RUN)
        st.session_state[keys.RUN_CHOSEN] = linked if linked in {run.identity for run in stored_runs()} else None
    return st.session_state[keys.RUN_CHOSEN]


def choose(identity: str | None) -> None:
    """Show this run; None shows the form for a new run."""
    st.session_state[keys.RUN_CHOSEN] = identity


def draw() -> None:
    """Draw the list."""
    st.subheader("Runs")
    st.button(
        "New run",
        icon=":material/add:",
        on_click=choose,
        args=(None,),
        width="stretch",
        type="primary" if chosen() is None else "secondary",
        key="evaluate-new",
    )
    runs = stored_runs()
    with st.container(key="run-list"):  # the stylesheet limits its height where it stands above the run
        for run in runs[:SHOWN_AT_FIRST]:
            _entry(run)
        if len(runs) > SHOWN_AT_FIRST:
            with st.expander(f"{len(runs) - SHOWN_AT_FIRST} older"):
                for run in runs[SHOWN_AT_FIRST:]:
                    _entry(run)
    st.file_uploader("Upload a run file", type=["json"], key=keys.RUN_FILE, on_change=_open_upload)
    if refused := st.session_state.pop(keys.RUN_REFUSED, None):
        tell_error(refused)


def _entry(run: StoredRun) -> None:
    with st.container(border=True, gap=None):
        st.button(
            plain(_title(run)),
            key=f"run-{run.identity}",
            type="primary" if chosen() == run.identity else "tertiary",
            width="stretch",
            on_click=choose,
            args=(run.identity,),
            help=plain(run.name),
        )
        words, menu = st.columns([5, 1], vertical_alignment="top", gap="small")
        words.caption("  \n".join([*map(plain, _facts(run)), f"**{_state(run)}**"]))
        with menu.popover("", icon=":material/more_vert:", help="Rename, compare, delete", type="tertiary"):
            name = st.text_input("Name", run.name, key=f"name-{run.identity}")
            st.button("Rename", key=f"rename-{run.identity}", on_click=_rename, args=(run.identity, name))
            if st.button("Compare", key=f"compare-{run.identity}", icon=":material/compare_arrows:"):
                _compare(run.identity)
            st.button("Delete", key=f"delete-{run.identity}", icon=":material/delete:", on_click=_delete, args=(run,))


def _title(run: StoredRun) -> str:
    """The run's name, or else its start time. The model's name, the same for most runs, is in the line below."""
    started = run.about.created[:16].replace("T", " ")
    return run.about.name or (f"Run of {started[5:]}" if started else "Run")


def _facts(run: StoredRun) -> list[str]:
    """Short lines: the model and circuit size, the number of prompts and strengths, the methods."""
    settings = run.about.settings
    sizes = ", ".join(f"{100 * fraction:g}" for fraction in settings.fractions)
    curves = [label_of(key) for key in settings.methods] + ["twins"] * bool(settings.controls)
    lines = [f"{Path(run.about.model.name).name} · {sizes} %"]
    lines.append(f"{settings.count_of('harmful')} prompts × {len(settings.strengths)} strengths")
    lines.append(", ".join(curves))
    if run.about.name:
        lines.append(run.about.created[:10])
    return lines


def _state(run: StoredRun) -> str:
    if run.finished:
        return "done"
    if work.is_running(run.identity):
        return "running"
    return f"stopped at {100 * run.done // max(1, run.batches)} %"


def _compare(identity: str) -> None:
    """Open the Compare page with this run and the one that is shown."""
    picked = dict.fromkeys([*st.session_state.get(keys.RUNS_COMPARED, []), chosen(), identity])
    st.session_state[keys.RUNS_COMPARED] = [run for run in picked if run][-RUNS_COMPARED:]
    address.open_page("compare")


def _rename(identity: str, name: str) -> None:
    try:
        rename_run(identity, name)
    except CnaError as error:
        toast(error)


def _delete(run: StoredRun) -> None:
    if work.is_running(run.identity):
        st.toast("This run is in progress. Stop it first.")
        return
    delete_run(run.identity)
    if chosen() == run.identity:
        choose(None)


def _open_upload() -> None:
    upload = st.session_state.get(keys.RUN_FILE)
    if upload is None:
        return
    try:
        choose(keep_run(Run.from_json(upload.getvalue(), upload.name)))
    except CnaError as error:
        st.session_state[keys.RUN_REFUSED] = str(error)

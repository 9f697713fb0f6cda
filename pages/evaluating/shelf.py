"""The left column: all runs, newest first; choose, name, go on, delete, open a file."""

import streamlit as st

from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal, StoredRun, delete_run, keep_run, rename_run, stored_runs
from cna_core.evaluation.runs import Run
from pages.evaluating import work

CHOSEN = "evaluate-chosen"
SHOWN_AT_FIRST = 8


def chosen() -> str | None:
    """The identity of the run that is looked at; None: a new one is being set up. A link may name it."""
    if CHOSEN not in st.session_state:
        linked = st.query_params.get("run")
        st.session_state[CHOSEN] = linked if linked in {run.identity for run in stored_runs()} else None
    return st.session_state[CHOSEN]


def choose(identity: str | None) -> None:
    """Look at this run from now on."""
    st.session_state[CHOSEN] = identity


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
    for run in runs[:SHOWN_AT_FIRST]:
        _entry(run)
    if len(runs) > SHOWN_AT_FIRST:
        with st.expander(f"{len(runs) - SHOWN_AT_FIRST} older"):
            for run in runs[SHOWN_AT_FIRST:]:
                _entry(run)
    st.file_uploader("Open a run file", type=["json"], key="evaluate-file", on_change=_open_upload)
    if refused := st.session_state.pop("_run_refused", None):
        st.error(refused)


def _entry(run: StoredRun) -> None:
    with st.container(border=True, gap=None):
        title, menu = st.columns([5, 1], vertical_alignment="center", gap="small")
        title.button(
            run.name,
            key=f"run-{run.identity}",
            type="secondary" if chosen() == run.identity else "tertiary",
            width="stretch",
            on_click=choose,
            args=(run.identity,),
        )
        with menu.popover("", icon=":material/more_vert:", help="Name, delete", type="tertiary"):
            name = st.text_input("Name", run.name, key=f"name-{run.identity}")
            st.button("Rename", key=f"rename-{run.identity}", on_click=_rename, args=(run.identity, name))
            st.button("Delete", key=f"delete-{run.identity}", icon=":material/delete:", on_click=_delete, args=(run,))
        st.caption(_state(run))


def _state(run: StoredRun) -> str:
    about = run.about.settings
    what = f"{about.prompts['harmful'].count} prompts × {len(about.strengths)} strengths"
    if run.finished:
        return what
    if work.is_running(work.job_of(run.identity)):
        return f"{what} · running"
    return f"{what} · {100 * run.done // max(1, run.batches)} % done"


def _rename(identity: str, name: str) -> None:
    try:
        rename_run(identity, name)
    except CnaError as error:
        st.toast(str(error))


def _delete(run: StoredRun) -> None:
    if work.is_running(work.job_of(run.identity)):
        st.toast("This run is running; stop it first.")
        return
    delete_run(run.identity)
    if chosen() == run.identity:
        choose(None)


def _open_upload() -> None:
    upload = st.session_state.get("evaluate-file")
    if upload is None:
        return
    try:
        choose(keep_run(Run.from_json(upload.getvalue(), upload.name)))
    except CnaError as error:
        st.session_state["_run_refused"] = str(error)


def read(identity: str) -> Run | None:
    """The whole run, or None while it is not whole (or gone)."""
    try:
        return Journal(identity).finished_run()
    except CnaError:
        return None

"""The list of all runs above the page, newest first: one line each, to open, rename, compare or delete."""

from pathlib import Path

import streamlit as st

from cna_core.errors import CnaError
from cna_core.evaluation.journal import Journal, StoredRun, delete_run, keep_run, rename_run, stored_runs
from cna_core.evaluation.runs import Run
from cna_core.interventions.registry import label_of
from cna_core.progress_words import counted
from pages.common import address, keys
from pages.common.plain import plain, tell_error, toast
from pages.common.recent import Recent
from pages.evaluating import summary, work

SHOWN_AT_FIRST = 6
WIDTHS = (6, 6, 5, 5, 3, 1)
"""Of the columns of a line."""
REFUSALS_KEPT = 256
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
    """Draw the list: one line for each run."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Runs", anchor=False, width="content")
        st.button(
            "New run",
            icon=":material/add:",
            on_click=choose,
            args=(None,),
            type="primary" if chosen() is None else "secondary",
            key="evaluate-new",
        )
        with st.popover("Upload", icon=":material/upload:", type="tertiary"):
            st.file_uploader("Upload a run file", type=["json"], key=keys.RUN_FILE, on_change=_open_upload)
    if refused := st.session_state.pop(keys.RUN_REFUSED, None):
        tell_error(refused)
    runs = stored_runs()
    with st.container(key="run-list", gap=None):  # the stylesheet makes its lines low
        for run in runs[:SHOWN_AT_FIRST]:
            _line(run)
        if len(runs) > SHOWN_AT_FIRST:
            with st.expander(f"{len(runs) - SHOWN_AT_FIRST} older"):
                for run in runs[SHOWN_AT_FIRST:]:
                    _line(run)


def _line(run: StoredRun) -> None:
    """Its name, which opens it; what was measured, how refusals changed, and when; and a menu."""
    name, model, measured, refusals, when, menu = st.columns(WIDTHS, vertical_alignment="center", gap="small")
    name.button(
        plain(_title(run)),
        key=f"run-{run.identity}",
        type="primary" if chosen() == run.identity else "tertiary",
        on_click=choose,
        args=(run.identity,),
        help=plain(run.name),
    )
    for place, words in zip((model, measured, refusals, when), _facts(run), strict=True):
        place.caption(plain(words))
    with menu.popover("", icon=":material/more_vert:", help="Rename, compare, delete", type="tertiary"):
        new_name = st.text_input("Name", run.name, key=f"name-{run.identity}")
        st.button("Rename", key=f"rename-{run.identity}", on_click=_rename, args=(run.identity, new_name))
        if st.button("Compare", key=f"compare-{run.identity}", icon=":material/compare_arrows:"):
            _compare(run.identity)
        st.button("Delete", key=f"delete-{run.identity}", icon=":material/delete:", on_click=_delete, args=(run,))


def _title(run: StoredRun) -> str:
    """The run's name, or else its methods."""
    settings = run.about.settings
    return run.about.name or ", ".join(
        [label_of(key) for key in settings.methods] + ["twins"] * bool(settings.controls)
    )


def _facts(run: StoredRun) -> tuple[str, str, str, str]:
    """The model and circuit size; the number of prompts and strengths; the refusal rates or the state; the date."""
    settings = run.about.settings
    sizes = ", ".join(f"{100 * fraction:g}" for fraction in settings.fractions)
    return (
        f"{Path(run.about.model.name).name} · {sizes} %",
        f"{counted(settings.count_of('harmful'), 'prompt')} × {counted(len(settings.strengths), 'strength')}",
        _refusals(run) if run.finished else _state(run),
        run.about.created[:10],
    )


@st.cache_resource(show_spinner=False)
def _known_refusals() -> Recent[str]:
    return Recent(REFUSALS_KEPT)


def _refusals(run: StoredRun) -> str:
    """The refusal rates of a finished run, without and with steering. A run file is read once."""
    key = (run.identity, run.written)  # other results of the same settings have the same identity
    words = _known_refusals().get(key)
    if words is None:
        try:
            whole = Journal(run.identity).finished_run()
        except CnaError:
            return "damaged"
        words = summary.in_short(whole) if whole is not None else ""
        _known_refusals().put(key, words)
    return words


def _state(run: StoredRun) -> str:
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

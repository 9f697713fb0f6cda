"""Learning how a model's refusals open, which the gate meter needs once for each model: quietly, in the meter's place.

It runs in the background and makes way for every answer; what was read until then is kept, so it goes on from there.
"""

from collections.abc import Callable

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.models.host import host
from cna_core.prompts.sets import ContrastSet
from pages.common import jobs, keys, session
from pages.common.watching import this_session

DRAW_SECONDS = 0.5


def draw(circuit: Circuit, busy: bool, place_markup: Callable[[str, float | None], str]) -> None:
    """Begin or go on learning, unless it was paused, and draw how far it is.

    Args:
        circuit: whose model is learnt.
        busy: an answer is being written: learning waits for its end.
        place_markup: what to draw: words and a share done.
    """
    name = circuit.model.name
    if busy:
        st.html(place_markup("The meter goes on learning how refusals open when this answer is written.", None))
        return
    job = st.session_state.get(keys.LEARNING_JOB)
    if job is not None and job.key == _key() and job.error:
        st.html(place_markup(f"The meter could not learn how refusals open: {job.error}", None))
        return
    if job is not None and job.key == _key() and job.succeeded:  # learnt, and not for this circuit
        st.html(place_markup(f"The circuit belongs to another model or number format ({name}): no meter for it.", None))
        return
    if st.session_state.get(keys.LEARNING_PAUSED) == name:
        st.html(place_markup("The meter has not learnt yet how this model's refusals open.", None))
        st.button("Learn it now", key="openings-learn", type="tertiary", on_click=_go_on, icon=":material/school:")
        return
    _watch(begin(), name, place_markup)


def begin() -> jobs.Job:
    """Start learning in the background, or join it where it runs."""
    prompts, name, options = ContrastSet.builtin(), session.model_name(), session.load_options()

    def work(job: jobs.Job) -> None:
        with host.acquire(name, **options, progress=job.progress, stop=job.stop) as model:
            calibrate_openings(model, prompts, progress=job.progress, stop=job.stop)

    job = jobs.start(_key(), "Learning how refusals open", work)
    st.session_state[keys.LEARNING_JOB] = job
    return job


def make_way() -> None:
    """Stop learning, if this session does: an answer is wanted now."""
    job = st.session_state.get(keys.LEARNING_JOB)
    if job is not None and not job.finished:
        job.stop.leave(this_session())


def _key() -> str:
    return f"openings-{session.model_name()}-{session.load_options()}"


@st.fragment(run_every=DRAW_SECONDS)
def _watch(job: jobs.Job, name: str, place_markup: Callable[[str, float | None], str]) -> None:
    if job.finished or job.stop.is_set():
        st.rerun()
    job.stop.look(this_session())
    words = f"Learning how this model's refusals open · {job.line}" if job.latest.total else job.line
    st.html(place_markup(words, job.latest.share))
    st.button("Not now", key="openings-pause", type="tertiary", on_click=_pause, args=(name,))


def _pause(name: str) -> None:
    st.session_state[keys.LEARNING_PAUSED] = name
    make_way()


def _go_on() -> None:
    st.session_state.pop(keys.LEARNING_PAUSED, None)

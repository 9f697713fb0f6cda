"""Calibration of the gate meter: measure once for each model which tokens open its refusals.

It runs in the background, and its progress takes the meter's place. It stops for every answer; finished work is saved,
so it resumes from there.
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
    """Start or resume calibration, unless it was paused, and draw its progress.

    Args:
        circuit: the circuit whose model is calibrated.
        busy: whether an answer is being generated; calibration waits until it is finished.
        place_markup: makes HTML from a message and a share done.
    """
    name = circuit.model.name
    if busy:
        st.html(place_markup("Calibration of the meter continues when this answer is finished.", None))
        return
    job = st.session_state.get(keys.CALIBRATION_JOB)
    if job is not None and job.key == _key() and job.error:
        st.html(place_markup(f"The meter could not be calibrated: {job.error}", None))
        return
    if job is not None and job.key == _key() and job.succeeded:  # calibrated, but for another model than the circuit's
        words = f"No meter: the circuit belongs to another model or number format ({name})."
        st.html(place_markup(words, None))
        return
    if st.session_state.get(keys.CALIBRATION_PAUSED) == name:
        st.html(place_markup("The meter is not calibrated for this model yet.", None))
        st.button("Calibrate now", key="openings-learn", type="tertiary", on_click=_resume, icon=":material/tune:")
        return
    _watch(begin(), name, place_markup)


def begin() -> jobs.Job:
    """Start calibration in the background, or join it if it is running."""
    prompts, name, options = ContrastSet.builtin(), session.model_name(), session.load_options()

    def work(job: jobs.Job) -> None:
        with host.acquire(name, **options, progress=job.progress, stop=job.stop) as model:
            calibrate_openings(model, prompts, progress=job.progress, stop=job.stop)

    job = jobs.start(_key(), "Calibrating the gate meter", work)
    st.session_state[keys.CALIBRATION_JOB] = job
    return job


def pause_for_answer() -> None:
    """Stop this session's calibration, if it is running, because an answer needs the model."""
    job = st.session_state.get(keys.CALIBRATION_JOB)
    if job is not None and not job.finished:
        job.stop.leave(this_session())


def _key() -> str:
    return f"openings-{session.model_name()}-{session.load_options()}"


@st.fragment(run_every=DRAW_SECONDS)
def _watch(job: jobs.Job, name: str, place_markup: Callable[[str, float | None], str]) -> None:
    if job.finished or job.stop.is_set():
        st.rerun()
    job.stop.look(this_session())
    words = f"Calibrating the gate meter, once for each model · {job.line}" if job.latest.total else job.line
    st.html(place_markup(words, job.latest.share))
    st.button("Not now", key="openings-pause", type="tertiary", on_click=_pause, args=(name,))


def _pause(name: str) -> None:
    st.session_state[keys.CALIBRATION_PAUSED] = name
    pause_for_answer()


def _resume() -> None:
    st.session_state.pop(keys.CALIBRATION_PAUSED, None)

"""Background jobs of the Evaluate page: sweeps, timing this machine, and the search for the working point.

The threads do not call Streamlit. Runs have an identity, jobs a key. The process remembers which job works on which
run, so a reloaded page and other sessions find it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.journal import Journal
from cna_core.evaluation.pace import Pace, measure_pace
from cna_core.evaluation.runs import Run
from cna_core.evaluation.sweep import resume, run_plan
from cna_core.evaluation.sweep_plan import plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.evaluation.working_point import WorkingPoint, search_working_point
from cna_core.models.host import host
from pages.common import jobs, session
from pages.common.recent import Recent

PATIENCE_SECONDS = 600.0
"""How long a sweep continues when no page shows it any more. A sweep takes long, and a laptop may sleep meanwhile."""
RUNS_KEPT, PACES_KEPT, SEARCHES_KEPT = 256, 32, 32


@dataclass(frozen=True)
class SoFar:
    """A running sweep: its run's identity and the results so far."""

    identity: str
    run: Run


@st.cache_resource(show_spinner=False)
def _job_of_run() -> Recent[str]:
    return Recent(RUNS_KEPT)


@st.cache_resource(show_spinner=False)
def _paces() -> Recent[Pace]:
    return Recent(PACES_KEPT)


@st.cache_resource(show_spinner=False)
def _found() -> "Recent[Found]":
    return Recent(SEARCHES_KEPT)


def start(ordered: SweepSettings, circuit: Circuit, activations: Activations | None) -> jobs.Job:
    """Start a sweep in the background, or join it if it is running."""
    name, options, of_run = session.model_name(), session.load_options(), _job_of_run()
    circuits = [circuit.sha256, *(other.sha256 for other in ordered.others.values())]
    key = _key("evaluate", ordered, name, options, circuits)

    def work(job: jobs.Job) -> Run:
        with _model(job, name, options) as model:
            plan = plan_sweep(model, circuit, ordered, activations, progress=job.progress, stop=job.stop)
            of_run.put(plan.identity, key)
            job.preview = SoFar(plan.identity, plan.run)
            return run_plan(model, plan, partial=_shown(job, plan.identity), progress=job.progress, stop=job.stop)

    return jobs.start(key, "Evaluation", work, patience_seconds=PATIENCE_SECONDS)


def resume_run(identity: str, about: Run) -> jobs.Job:
    """Resume a stored run in the background."""
    key = f"evaluate-{identity}"
    _job_of_run().put(identity, key)
    options = session.load_options() | {"dtype": about.model.dtype}
    name = about.model.name

    def work(job: jobs.Job) -> Run:
        job.preview = SoFar(identity, about)
        with _model(job, name, options) as model:
            shown = _shown(job, identity)
            return resume(model, identity, partial=shown, progress=job.progress, stop=job.stop)

    return jobs.start(key, "Evaluation", work, patience_seconds=PATIENCE_SECONDS)


def job_of(identity: str) -> jobs.Job | None:
    """The job of this process that works on a run, or was the last to do so."""
    key = _job_of_run().get(identity)
    return jobs.get(key) if key else None


def is_running(identity: str) -> bool:
    """Whether a job is working on a run."""
    job = job_of(identity)
    return job is not None and not job.finished


def pace(circuit: Circuit) -> Pace | None:
    """This machine's speed with the chosen model, measured in the background once the model is in memory."""
    name, options, paces = session.model_name(), session.load_options(), _paces()
    key = _key("pace", name, options)
    known = paces.get(key)
    if known is not None:
        return known
    if jobs.get(key) is None and name in host.loaded():

        def work(job: jobs.Job) -> None:
            with _model(job, name, options) as model:
                paces.put(key, measure_pace(model, circuit, stop=job.stop))

        jobs.start(key, "Timing one batch", work)
    return None


def pace_job() -> jobs.Job | None:
    """The job that measures the speed, while it runs."""
    return jobs.running(_key("pace", session.model_name(), session.load_options()))


def search_key(circuit: Circuit) -> str:
    return _key("search", session.model_name(), session.load_options(), circuit.sha256)


@dataclass(frozen=True)
class Found:
    """The result of a search for the working point; `point` is None if no setting of the grid halves refusal."""

    point: WorkingPoint | None


def found_by_search(circuit: Circuit) -> Found | None:
    """The result of the last search for this circuit's working point; None if none has ended."""
    return _found().get(search_key(circuit))


def start_search(circuit: Circuit, activations: Activations | None, fractions: tuple[float, ...]) -> None:
    """Search for the working point in the background."""
    key, name, options, found = search_key(circuit), session.model_name(), session.load_options(), _found()

    def work(job: jobs.Job) -> None:
        with _model(job, name, options) as model:
            point = search_working_point(
                model, circuit, fractions=fractions, activations=activations, progress=job.progress, stop=job.stop
            )
        found.put(key, Found(point))

    jobs.start(key, "Search for the working point", work, patience_seconds=PATIENCE_SECONDS)


def stored_circuit(identity: str) -> Circuit:
    """The largest circuit of a stored run.

    Raises:
        RunError: the run was opened from a file, which does not hold its circuit.
    """
    return Journal(identity).inputs()[0]


def _model(job: jobs.Job, name: str, options: dict[str, Any]) -> Any:
    acquired: Any = host.acquire(name, **options, progress=job.progress, stop=job.stop)
    return acquired


def _shown(job: jobs.Job, identity: str) -> Callable[[Run], None]:
    def show(run: Run) -> None:
        job.preview = SoFar(identity, run)

    return show


def _key(kind: str, *parts: Any) -> str:
    return f"{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

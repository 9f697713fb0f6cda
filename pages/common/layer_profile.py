"""The layer profile: how much ablating each layer's neurons changes the chance of a refusal; on Gate and Evaluate.

It is measured in the background once and shared by both pages and all sessions of the process.
"""

import hashlib
from collections.abc import Callable

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.evaluation.profile import CausalProfile, causal_profile
from cna_core.models.host import host
from cna_core.prompts.sets import PromptSet
from pages.common import jobs, session
from pages.common.recent import Recent

PROMPTS = 24
"""The number of harmful evaluation prompts used, spread evenly over the built-in ones."""
PROFILES_KEPT = 32
DRAW_SECONDS = 1.5


@st.cache_resource(show_spinner=False)
def _profiles() -> Recent[CausalProfile]:
    return Recent(PROFILES_KEPT)


def known(circuit: Circuit) -> CausalProfile | None:
    """The profile of this circuit, complete or so far; None before the first prompt."""
    job = jobs.get(_key(circuit))
    return _profiles().get(_key(circuit)) or (job.preview if job is not None else None)


def offer(circuit: Circuit, draw: Callable[[CausalProfile], None] | None = None) -> None:
    """Draw the measurement's progress while it runs; otherwise its outcome, and the button until it is complete.

    Args:
        draw: draws the profile so far, below.
    """
    key = _key(circuit)

    def draw_known() -> None:
        profile = known(circuit)
        if draw is not None and profile is not None:
            draw(profile)

    if jobs.running(key):
        jobs.watch(key, lambda _job: draw_known(), DRAW_SECONDS)
        return
    jobs.tell_outcome(jobs.get(key))
    if _profiles().get(key) is None:
        _button(circuit)
    draw_known()


def _button(circuit: Circuit) -> None:
    st.button(
        "Measure the layers",
        key="measure-layers",
        icon=":material/science:",
        on_click=start,
        args=(circuit,),
        help=f"Ablates the circuit's neurons one layer at a time on {PROMPTS} harmful prompts that were not used to "
        "find it, and random neurons of the same layer for comparison. Reads the chance of a refusal from the first "
        "token. The first time, it also calibrates the gate meter. Takes a few minutes on a laptop.",
    )


def start(circuit: Circuit) -> None:
    """Measure it in the background, or join a measurement that is running."""
    key, name, options, profiles = _key(circuit), session.model_name(), session.load_options(), _profiles()

    def work(job: jobs.Job) -> None:
        every = PromptSet.builtin("evaluation-harmful").prompts
        prompts = [every[place * len(every) // PROMPTS] for place in range(PROMPTS)]

        def show(profile: CausalProfile) -> None:
            job.preview = profile

        with host.acquire(name, **options, progress=job.progress, stop=job.stop) as model:
            openings = calibrate_openings(model, progress=job.progress, stop=job.stop)
            profile = causal_profile(
                model, circuit, prompts, openings, partial=show, progress=job.progress, stop=job.stop
            )
        profiles.put(key, profile)

    jobs.start(key, "Layer profile", work)


def _key(circuit: Circuit) -> str:
    about = repr((session.model_name(), session.load_options(), circuit.sha256))
    return f"layer-profile-{hashlib.sha256(about.encode()).hexdigest()[:16]}"

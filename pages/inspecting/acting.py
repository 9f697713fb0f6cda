"""Where the circuit acts, measured on request: the refusal chance with one layer's neurons ablated at a time."""

from typing import Any

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.evaluation.profile import CausalProfile, causal_profile
from cna_core.models.host import host
from cna_core.prompts.sets import ContrastSet, PromptSet
from pages.common import jobs, session
from pages.inspecting import linked

PROMPTS = 12
"""Evaluation prompts asked: enough for the large effects, and done in a minute or two on a laptop."""
RANDOM_CIRCUITS = 1
"""Draws of the control: as many random neurons of the same layer."""
ACTS, MASS = "acts", "mass"
BESIDE = {ACTS: "Where it acts", MASS: "Where |δ| lies"}
"""What is drawn beside the circuit's neurons, once the first was measured."""


def known(circuit: Circuit) -> CausalProfile | None:
    """The profile of this circuit, finished or as far as it is; None before the first prompt."""
    job = jobs.get(_key(circuit))
    return None if job is None else job.result or job.preview


def offer(circuit: Circuit) -> None:
    """A button that starts the measurement, its progress while it runs, or its outcome."""
    key = _key(circuit)
    job = jobs.get(key)
    if job is not None and not job.finished:
        jobs.watch(key)
        return
    jobs.tell_outcome(job)
    if known(circuit) is not None:
        linked.choose("Beside the circuit's neurons", BESIDE, "beside")
    if job is not None and job.succeeded:
        return
    st.button(
        "Measure where it acts",
        key="measure-acting",
        icon=":material/science:",
        on_click=_start,
        args=(circuit,),
        help=f"Ablates the circuit's neurons one layer at a time on {PROMPTS} harmful prompts that were not used to "
        "find it, beside as many random neurons of the layer, and reads the refusal chance off the first token. The "
        "first time, it learns how this model's refusals open, which takes some minutes on a laptop.",
    )


def in_words(profile: CausalProfile) -> str:
    """What the measurement says: the whole circuit, and the layers that do most by themselves."""
    layers = ", ".join(f"{layer} ({change:+.2f})" for layer, change in profile.strongest(3))
    whole = profile.whole_change
    return (
        f"Dots: how far the chance of a refusal ({profile.baseline.mean():.2f} over {profile.prompts} prompts) moves "
        "when only that layer's part of the circuit is ablated, with its 95 % interval; grey: as many random neurons. "
        f"Strongest alone: layers {layers}. All together: {whole.value:+.2f} ({whole.low:+.2f} to {whole.high:+.2f})."
    )


def _start(circuit: Circuit) -> None:
    name, options = session.model_name(), session.load_options()
    prompts = PromptSet.builtin("evaluation-harmful").prompts[:PROMPTS]

    def work(job: jobs.Job) -> CausalProfile:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(name, **options, **watching) as model:
            openings = calibrate_openings(model, ContrastSet.builtin(), **watching)

            def show(profile: CausalProfile) -> None:
                job.preview = profile

            control: dict[str, Any] = {"random_circuits": RANDOM_CIRCUITS, "partial": show}
            return causal_profile(model, circuit, prompts, openings, **control, **watching)

    jobs.start(_key(circuit), "Measuring where the circuit acts", work)


def _key(circuit: Circuit) -> str:
    return f"acting-{session.model_name()}-{circuit.sha256[:16]}"

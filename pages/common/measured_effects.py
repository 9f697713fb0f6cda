"""The effects of the chosen model's neurons on the chosen prompts: measured on request, and shared by all sessions.

All layers are measured at once; a circuit by effect is selected from the first two thirds of them unless the sidebar
says otherwise.
"""

from typing import TYPE_CHECKING

import streamlit as st

from cna_core.circuits.circuit_file import EffectSettings
from cna_core.models.host import host
from pages.common import findings, jobs, keys, libraries, session
from pages.common.recent import Recent

if TYPE_CHECKING:  # the first page is drawn before torch is imported
    from cna_core.circuits.effects import Effects

KEPT = 6
EXPLANATION = (
    "**Effect** estimates how much the chance of a refusal changes when a neuron is ablated, with one backward pass "
    "per prompt. δ shows where activations differ; effect shows which neurons act. It takes a minute or more."
)


@st.cache_resource(show_spinner=False)
def _measured() -> "Recent[Effects]":
    return Recent(KEPT)


def known() -> "Effects | None":
    """The effects in all layers, or None if they are not measured yet."""
    return _measured().get(_key())


def to_select_from() -> "Effects | None":
    """The effects that a circuit is selected from, or None if they are not measured yet."""
    effects = known()
    if effects is None or st.session_state.get(keys.EFFECT_IN_ALL_LAYERS):
        return effects
    return effects.of_first_two_thirds()


def offer() -> None:
    """Draw the job's progress while it runs, or else its outcome and the button to start it."""
    key = _key()
    if jobs.running(key):
        jobs.watch(key)
        return
    jobs.tell_outcome(jobs.get(key))
    if known() is None:
        st.markdown(EXPLANATION)
        st.button("Measure effects", key="measure-effects", icon=":material/bolt:", type="primary", on_click=start)


def restore() -> None:
    """Show the current choices' effects if they are on disk. Loads no model and computes nothing."""
    if known() is not None or session.only_triggered():
        return
    libraries.wait_on_page()
    from cna_core.evaluation.effects import kept_effects

    named = findings.known_model(session.model_name(), session.load_options())
    if named is not None:
        kept = kept_effects(*named, session.contrast(), EffectSettings(layers="all"))
        if kept is not None:
            _measured().put(_key(), kept)


def start() -> None:
    """Start measuring in the background, or join the job if it is running."""
    key, name, options, prompts = _key(), session.model_name(), session.load_options(), session.contrast()
    measured = _measured()

    def work(job: jobs.Job) -> None:
        libraries.wait(job.progress, job.stop)
        from cna_core.evaluation.effects import measure_effects

        with host.acquire(name, **options, progress=job.progress, stop=job.stop) as model:
            settings = EffectSettings(layers="all")
            measured.put(key, measure_effects(model, prompts, settings=settings, progress=job.progress, stop=job.stop))

    jobs.start(key, "Measuring effects", work)


def _key() -> str:
    return findings.finding_key().replace("find-", "effects-", 1)

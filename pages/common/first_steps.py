"""What a page shows before the gate is found: the progress of finding it, or the button that starts it."""

from collections.abc import Callable

import streamlit as st

from cna_core.models.catalog import CatalogEntry, catalog
from cna_core.models.fetch import is_ready
from cna_core.progress_words import size_in_words
from cna_core.prompts.sets import ContrastSet
from pages.common import findings, jobs, measured_effects, session
from pages.common.cards import Card


def under_way() -> jobs.Job | None:
    """The job that finds the gate for the current choices, while it runs."""
    return jobs.running(findings.finding_key())


def offer(draw: Callable[[jobs.Job], None] | None = None) -> None:
    """Draw the job's progress, with `draw` for its preview, or else the last outcome and the button to start it.

    If the gate was found but the circuit is to be selected by effects that are missing, offer to measure these."""
    if findings.finding() is not None:
        measured_effects.offer()
        return
    job = under_way()
    if job is not None:
        jobs.watch(job.key, draw)
        return
    jobs.tell_outcome(jobs.get(findings.finding_key()))
    row = st.container(horizontal=True, vertical_alignment="center")
    row.button(
        "Find the gate",
        type="primary",
        icon=":material/search:",
        key="find-here",
        on_click=findings.start,
    )
    row.caption(f"No circuit yet. {time_it_takes(session.model_name())}", width="stretch")


def time_it_takes(name: str) -> str:
    """How long the chosen model takes, and what is downloaded first, in one sentence."""
    entry = catalog().get(name)
    if is_ready(name):
        return "The prompts are run once, which takes seconds to minutes on a CPU. The result is saved."
    if entry is not None and entry.embedded is not None:
        size = size_in_words(entry.embedded.size_bytes)
        return f"The first time, the model is downloaded ({size}) and converted. Then the prompts are run, once."
    return "The first time, the model is downloaded from the Hub. Then the prompts are run, once."


def steps(name: str, contrast: ContrastSet) -> list[Card]:
    """The three steps from prompts to a circuit, as cards."""
    prompts = f"{len(contrast.positive.prompts)} + {len(contrast.negative.prompts)} prompts"
    return [
        Card("1 · Record", prompts, "refused prompts and matched benign ones"),
        Card("2 · Select", _neurons(catalog().get(name)), "ranked by δ, the difference of their means on the two sets"),
        Card("3 · Compare with chance", "Shuffled labels", "the same selection after shuffling the prompts' labels"),
    ]


def _neurons(entry: CatalogEntry | None) -> str:
    return "Every neuron" if entry is None else f"{entry.neurons:,} neurons"

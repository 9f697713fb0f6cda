"""What a page shows before there is a finding: the work under way, or the button for it and what will happen."""

from collections.abc import Callable

import streamlit as st

from cna_core.models.catalog import CatalogEntry, catalog
from cna_core.models.fetch import is_ready
from cna_core.progress_words import size_in_words
from cna_core.prompts.sets import ContrastSet
from pages.common import findings, jobs, session
from pages.common.cards import Card


def under_way() -> jobs.Job | None:
    """The job that finds the gate for the present choices, until it has ended or stopped."""
    return jobs.running(findings.finding_key())


def offer(draw: Callable[[jobs.Job], None] | None = None) -> None:
    """The finding's progress while it runs, `draw` drawing its preview; else how it ended, and the button for it."""
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
    row.caption(f"No circuit yet. {time_it_takes(session.model_name())}")


def time_it_takes(name: str) -> str:
    """How long the chosen model takes, and what it fetches first, in one sentence."""
    entry = catalog().get(name)
    if is_ready(name):
        return "About 10 s for a small model on a laptop; recorded once, and kept."
    if entry is not None and entry.embedded is not None:
        size = size_in_words(entry.embedded.size_bytes)
        return f"The first time its file is fetched ({size}) and converted; the prompts then take about 10 s."
    return "The first time its files come from the Hub; then the prompts go through."


def steps(name: str, contrast: ContrastSet) -> list[Card]:
    """The three steps from prompts to a circuit, as cards."""
    prompts = f"{len(contrast.positive.prompts)} + {len(contrast.negative.prompts)} prompts"
    return [
        Card("1 · Record", prompts, "refused ones, and matched ones that are not"),
        Card("2 · Compare", _neurons(catalog().get(name)), "each one's mean on the two sets: the difference is δ"),
        Card("3 · Hold against chance", "Shuffled labels", "the same selection, beside every figure"),
    ]


def _neurons(entry: CatalogEntry | None) -> str:
    return "Every neuron" if entry is None else f"{entry.neurons:,} neurons"

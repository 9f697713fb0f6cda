"""The embedded models on the first page, in plain words: what each shows, needs, and takes on this machine."""

import time
from typing import TYPE_CHECKING

import streamlit as st

from cna_core.errors import CnaError
from cna_core.models.catalog import CatalogEntry, catalog
from cna_core.models.host import host
from cna_core.progress_words import duration_in_words, size_in_words
from cna_core.prompts.sets import ContrastSet
from pages.common import keys, libraries, session
from pages.common.plain import plain

if TYPE_CHECKING:  # the first page is drawn before torch is imported
    from cna_core.models.needs import ModelNeeds

SHOWS = {
    "qwen2.5-coder-0.5b-instruct": "**Quick to try.** It is smaller than the paper's models (1B to 72B): it refuses "
    "about two in three plain harmful requests, and needs a larger circuit or strength than the paper's.",
    "qwen2.5-coder-1.5b-instruct": "**As in the paper.** It refused 96 % of 24 held-out requests, and 29 % with the "
    "paper's 0.1 % of neurons ablated.",
}
TOKENS_A_PROMPT = 14
"""Tokens of a discovery prompt behind the beginning that all share."""
_PROBE = 1024


def draw(contrast: ContrastSet) -> None:
    """A column for each model, with a button that chooses it.

    Args:
        contrast: the discovery prompts, for the time that recording them takes.
    """
    entries = [entry for name, entry in catalog().items() if name in SHOWS]
    for column, entry in zip(st.columns(len(entries)), entries, strict=True):
        with column.container(border=True, gap="small"):
            st.markdown(f"**{entry.title}**  \n{SHOWS[entry.id]}")
            _facts(entry, contrast)
            chosen = entry.id == session.model_name()
            st.button(
                "Chosen" if chosen else "Choose this model",
                key=f"choose-{entry.id}",
                disabled=chosen,
                on_click=_choose,
                args=(entry.id,),
            )


def _facts(entry: CatalogEntry, contrast: ContrastSet) -> None:
    """What the model needs and takes on this machine; torch says that, so it comes a little after the first page."""
    if not libraries.are_here(libraries.SHOWING):
        _until_known(entry)
        return
    from cna_core.models.needs import needs_of

    try:
        needs = needs_of(entry, dtype=session.load_options()["dtype"], released_bytes=host.idle_bytes())
    except CnaError as error:
        st.caption(plain(error))
        return
    st.caption(describe(entry, needs, seconds_of(entry, contrast)))
    if not needs.fits:
        st.warning(plain(needs.words), icon=":material/memory:")


@st.fragment(run_every=1.0)
def _until_known(entry: CatalogEntry) -> None:
    if libraries.are_here(libraries.SHOWING):
        st.rerun()
    st.caption(f"{entry.layers} layers, {entry.neurons:,} neurons · looking at this machine …")


def describe(entry: CatalogEntry, needs: "ModelNeeds", seconds: float) -> str:
    """Download, memory and time in one line."""
    download = f"download {size_in_words(needs.download_bytes)}, once" if needs.download_bytes else "on this machine"
    free = f" of {size_in_words(needs.free_bytes)} free" if needs.free_bytes is not None else ""
    return (
        f"{entry.layers} layers, {entry.neurons:,} neurons · {download} · memory {size_in_words(needs.memory_bytes)} "
        f"in {needs.number_format}{free} · finding the gate takes about {duration_in_words(seconds)} once loaded"
    )


def seconds_of(entry: CatalogEntry, contrast: ContrastSet) -> float:
    """Roughly how long recording takes on this machine: two operations for each parameter and token."""
    operations = 2e9 * entry.parameters * TOKENS_A_PROMPT * len(contrast.prompts)
    return operations / _operations_a_second(str(session.load_options()["dtype"]))


@st.cache_resource(show_spinner=False)
def _operations_a_second(dtype: str) -> float:
    """Of a matrix product in the number format that models will be loaded in; the best of three."""
    import torch

    from cna_core.models.precision import as_device, as_dtype

    device = as_device("auto")
    matrix = torch.ones(_PROBE, _PROBE, dtype=as_dtype(dtype, device), device=device)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return float(2 * _PROBE**3 / best)


def _choose(name: str) -> None:
    st.session_state[keys.MODEL] = name

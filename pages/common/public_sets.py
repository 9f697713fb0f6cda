"""A widget that chooses between the built-in prompts and public sets, with the license of the chosen set below it."""

from typing import Any

import streamlit as st

from cna_core.prompts.public import find_public, is_public_here
from cna_core.prompts.public_catalog import PREFIX, Role, public_contrast, public_contrasts, public_set, sets_of
from cna_core.prompts.sets import PromptSet

BUILT_IN = "built-in"


def choose(place: Any, label: str, role: Role, builtin: str, key: str) -> PromptSet:
    """Draw the choice of a prompt set in `place`, with the license of a public set below it.

    Args:
        role: which public sets are offered.
        builtin: the name of the built-in set for this role.
        key: the widget's key.

    Raises:
        PromptError: the chosen set is not on this machine and cannot be downloaded.
        StoppedError: the download was stopped.
    """
    known = {each.id: each.title for each in sets_of(role)}
    chosen = place.selectbox(
        label,
        [BUILT_IN, *known],
        key=key,
        format_func=lambda name: known.get(name, "built-in (written for this project)"),
        persist_state="session",
    )
    if chosen == BUILT_IN:
        return PromptSet.builtin(builtin)
    prompts = fetched(chosen)
    place.caption(find_public(chosen).credit)
    return prompts


def fetched(name: str) -> PromptSet:
    """A public set; the page shows a spinner while it is downloaded. Raises as `choose` does."""
    if is_public_here(name):
        return PromptSet.public(name)
    with st.spinner(f"Downloading {public_set(name).title} …"):
        return PromptSet.public(name)


def contrast_titles() -> dict[str, str]:
    """The ready-made public contrast sets: their keys in the address and the session → their titles."""
    return {f"{PREFIX}{name}": known.title for name, known in public_contrasts().items()}


def show_contrast(name: str) -> None:
    """Download a public contrast set if needed, and show its licenses and sources.

    Raises:
        PromptError: one of its two sets is not on this machine and cannot be downloaded.
    """
    known = public_contrast(name)
    sides = [known.positive, known.negative]
    for side in sides:
        fetched(side)
    for credit in dict.fromkeys(find_public(side).credit for side in sides):
        st.caption(credit)

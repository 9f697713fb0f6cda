"""A widget that chooses between the built-in prompts and public sets, with the license of the chosen set below it."""

from typing import Any

import streamlit as st

from cna_core.errors import PromptError
from cna_core.prompts.public import find_public, is_public_here
from cna_core.prompts.public_catalog import PREFIX, Role, public_contrast, public_contrasts, public_set, sets_of
from cna_core.prompts.sets import PromptSet
from pages.common import keys

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


def pick(name: str) -> None:
    """Remember that this session chose the contrast set itself, so that it may be downloaded."""
    st.session_state[keys.PROMPTS_PICKED] = name


def show_contrast(name: str) -> None:
    """Show the licenses and sources of a public contrast set. It is downloaded if this session chose it itself.

    Raises:
        PromptError: one of its two sets is not on this machine, and a link chose it or it cannot be downloaded.
    """
    known = public_contrast(name)
    sides = [known.positive, known.negative]
    missing = [side for side in sides if not is_public_here(side)]
    if missing and st.session_state.get(keys.PROMPTS_PICKED) != name:
        label = f"Download {known.title}"
        st.button(label, key="download-prompts", icon=":material/download:", on_click=pick, args=(name,))
        title = public_set(missing[0]).title
        raise PromptError(f"{title} is not on this machine: press Download in the sidebar, or choose other prompts.")
    for side in sides:
        fetched(side)
    for credit in dict.fromkeys(find_public(side).credit for side in sides):
        st.caption(credit)

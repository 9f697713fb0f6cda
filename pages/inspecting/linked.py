"""Choices of a page that its address holds, and that survive a page switch and a reload.

A widget bound to the address would lose its value on a run that does not draw it, as while a link's finding is still
being restored; so the address is read when the page is first drawn, and written whenever the choice is.
"""

from collections.abc import Mapping

import streamlit as st


def restore(key: str, options: Mapping[str, str]) -> None:
    """Take the choice from the address, once in a session; what is no option is ignored."""
    linked = st.query_params.get(key)
    if key not in st.session_state:
        st.session_state[key] = linked if linked in options else next(iter(options))


def shown(options: Mapping[str, str], key: str) -> str:
    """The choice as it stands, for what is drawn above its buttons."""
    restore(key, options)
    return str(st.session_state[key] or next(iter(options)))


def choose(label: str, options: Mapping[str, str], key: str) -> str:
    """Draw the choice as a row of buttons; the first option is the default, and is not written to the address."""
    restore(key, options)
    st.segmented_control(
        label,
        list(options),
        format_func=options.__getitem__,
        key=key,
        persist_state="session",
        required=True,
        label_visibility="collapsed",
        width="content",
    )
    first = next(iter(options))
    chosen = st.session_state[key] or first
    if chosen == first:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != chosen:
        st.query_params[key] = chosen
    return str(chosen)

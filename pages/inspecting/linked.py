"""Choices of a page that its address holds, and that survive a page switch and a reload.

A widget bound to the address would lose its value on a run that does not draw it, as while a link's finding is still
being restored; so the address is read when the page is first drawn, and written whenever the choice is.
"""

from collections.abc import Iterable, Mapping

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


def choose_range(what: str, whole: tuple[int, int], key: str) -> tuple[int, int]:
    """Draw the choice of a range, first and last both in it, as two numbers; the whole is not written to the address.

    Args:
        what: what is counted, in the singular.
        whole: the largest range; a wider one, as of another model, is cut to it.
        key: its name in the address.
    """
    low, high = whole
    linked = _parsed(st.query_params.get(key, ""))
    kept = st.session_state.setdefault(f"range-{key}", linked)
    first, last = (min(max(end, low), high) for end in kept or whole)
    keys = [f"{key}-from-{first}-of-{high}", f"{key}-to-{last}-of-{high}"]
    for column, end, value, widget in zip(st.columns(2), ("From", "to"), (first, last), keys, strict=True):
        column.number_input(f"{end} {what}", low, high, value, key=widget, on_change=_keep_range, args=(key, keys))
    if (first, last) == whole:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != f"{first}-{last}":
        st.query_params[key] = f"{first}-{last}"
    return first, last


def whole_ranges(keys: Iterable[str]) -> None:
    """Callback: show the whole again."""
    for key in keys:
        st.session_state[f"range-{key}"] = None


def _keep_range(key: str, widgets: list[str]) -> None:
    first, last = sorted(int(st.session_state[widget]) for widget in widgets)
    st.session_state[f"range-{key}"] = (first, last)


def _parsed(words: str) -> tuple[int, int] | None:
    """The range that an address names, as in "18-23"; None where it names none."""
    first, _, last = words.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return None
    return min(int(first), int(last)), max(int(first), int(last))

"""Choices that are stored in the page's address, and survive a page switch and a reload.

A widget bound to the address loses its value in a run that does not draw it, for example while the finding of a link is
being restored. So the address is read when the page is first drawn, and written whenever the choice changes.
"""

from collections.abc import Iterable, Mapping

import streamlit as st

from pages.common import address


def restore(key: str, options: Mapping[str, str]) -> None:
    """Read the choice from the address, once in a session; an unknown option is ignored."""
    linked = st.query_params.get(key)
    if key not in st.session_state:
        st.session_state[key] = linked if linked in options else next(iter(options))


def shown(options: Mapping[str, str], key: str) -> str:
    """The current choice, for elements that are drawn above its buttons."""
    restore(key, options)
    return str(st.session_state[key] or next(iter(options)))


def choose(label: str, options: Mapping[str, str], key: str) -> str:
    """Draw the choice as a row of buttons. The first option is the default and is not written to the address."""
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
    """Draw two number inputs for a range (first, last), both included. The whole range is not written to the address.

    Args:
        what: what the range counts, in the singular.
        whole: the largest range; a wider choice, for example from another model, is clipped to it.
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
    """Callback: reset ranges to the whole."""
    for key in keys:
        st.session_state[f"range-{key}"] = None


def _keep_range(key: str, widgets: list[str]) -> None:
    first, last = sorted(int(st.session_state[widget]) for widget in widgets)
    st.session_state[f"range-{key}"] = (first, last)


def _parsed(words: str) -> tuple[int, int] | None:
    """The range in an address, such as "18-23"; None if there is none."""
    first, _, last = words.partition("-")
    ends = address.whole_number(first), address.whole_number(last)
    if ends[0] is None or ends[1] is None:
        return None
    return min(ends[0], ends[1]), max(ends[0], ends[1])

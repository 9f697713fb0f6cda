"""The page's address: reads and writes the choices that no widget is bound to, and holds the selected neuron."""

from typing import NoReturn

import streamlit as st

from cna_core.circuits import library
from cna_core.errors import CnaError
from pages.common import chosen_circuit, findings, keys, measured_effects, session
from pages.common.plain import toast
from pages.touring.route import STOPS


def selected_neuron() -> tuple[int, int] | None:
    """The (layer, neuron) whose card is open, or None."""
    return st.session_state.get(keys.SELECTED_NEURON)


def select_neuron(layer: int, neuron: int) -> None:
    """Open a neuron's card."""
    st.session_state[keys.SELECTED_NEURON] = (int(layer), int(neuron))


def whole_number(text: str) -> int | None:
    """The number that a part of an address is; None if it is none."""
    return int(text) if text.isdecimal() and len(text) <= 9 else None


def restore() -> None:
    """Read from the address, once in a session, what no widget is bound to. Invalid values are ignored."""
    if st.session_state.get(keys.RESTORED):
        return
    st.session_state[keys.RESTORED] = True
    parts = st.query_params.get(keys.IN_ADDRESS_NEURON, "").partition(".")
    layer, neuron = whole_number(parts[0]), whole_number(parts[2])
    if layer is not None and neuron is not None:
        select_neuron(layer, neuron)
    step = whole_number(st.query_params.get(keys.TOUR, ""))
    if step is not None and 1 <= step <= len(STOPS):
        st.session_state[keys.TOUR] = step
    if name := st.query_params.get(keys.IN_ADDRESS_CIRCUIT):
        try:
            chosen_circuit.open_circuit(library.load_circuit(name), name)
        except CnaError as error:
            toast(error)
    if st.query_params.get(keys.IN_ADDRESS_FOUND) == "1":
        try:
            # A link shows what is there and starts nothing: whoever follows it has not asked for a download or a load.
            findings.restore()
            if st.query_params.get(keys.SCORE) == "attribution-patching":
                measured_effects.restore()
        except CnaError as error:
            toast(error)


def open_page(name: str, **query: str) -> NoReturn:
    """Switch to another page, with these values in its address.

    Use it in place of `st.switch_page`, which without values fails while a widget's value is in the address.
    """
    st.switch_page(f"pages/{name}.py", query_params={keys.MODEL: session.model_name(), **query})


def write() -> None:
    """Write the address, so that opening it elsewhere restores this view."""
    selected, prompts = selected_neuron(), st.session_state.get(keys.PROMPTS)
    score = st.session_state.get(keys.SCORE, st.query_params.get(keys.SCORE))
    for name, value in {
        keys.MODEL: session.model_name(),
        keys.PROMPTS: None if prompts == session.BUILT_IN else prompts,
        keys.SCORE: None if score == "delta" else score,
        keys.IN_ADDRESS_NEURON: f"{selected[0]}.{selected[1]}" if selected else None,
        keys.IN_ADDRESS_CIRCUIT: st.session_state.get(keys.OPENED_CIRCUIT_NAME),
        keys.IN_ADDRESS_FOUND: "1" if findings.finding() else None,
        keys.TOUR: str(st.session_state[keys.TOUR]) if keys.TOUR in st.session_state else None,
    }.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value

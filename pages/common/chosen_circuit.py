"""The circuit that this session looks at: opened from a file or the library, else selected from the activations."""

import streamlit as st

from cna_core.circuits.attribution import attribute, measured
from cna_core.circuits.circuit import Circuit, CircuitSettings
from pages.common import findings, keys


def settings() -> CircuitSettings:
    """How the sidebar says a circuit is to be selected."""
    state = st.session_state
    return CircuitSettings(
        fraction=float(state.get(keys.SIZE, 0.1)) / 100,
        score=state.get(keys.SCORE, "delta"),
        skip_layers=int(state.get(keys.SKIP, 0)),
        universal_threshold=float(state.get(keys.THRESHOLD, 0.8)) if state.get(keys.LEAVE_OUT, True) else None,
        universal_fraction=0.001,
    )


def opened() -> Circuit | None:
    """The circuit opened from a file or the library, if one is; it stands in front of the selected one."""
    return st.session_state.get(keys.OPENED_CIRCUIT)


def open_circuit(circuit: Circuit | None, name: str | None = None) -> None:
    """Put a circuit from a file or the library (then with its name) in front, or (None) go back to the selected one."""
    st.session_state[keys.OPENED_CIRCUIT] = circuit
    st.session_state[keys.OPENED_CIRCUIT_NAME] = name


def from_upload(content: bytes, name: str) -> Circuit:
    """The circuit in an uploaded file; a neural-steering file is taken to belong to the model whose gate was found.

    Raises:
        CircuitError: the file is not a circuit, or belongs to another model than the one whose gate was found.
    """
    recorded = findings.activations()
    identity = recorded.model if recorded else None
    uploaded = Circuit.from_json(content, identity, name)
    if recorded is None:
        return uploaded
    uploaded.check_model(recorded.model)
    return measured(uploaded, recorded)


def current() -> Circuit | None:
    """The session's circuit: the opened one, else the one selected from the activations, else None."""
    if opened() is not None:
        return opened()
    recorded = findings.activations()
    if recorded is None:
        return None
    wanted = settings()
    key = (findings.finding_key(), wanted.model_dump_json())
    known_key, known = st.session_state.get(keys.SELECTED_CIRCUIT, (None, None))
    if known_key != key:
        known = attribute(
            recorded,
            fraction=wanted.fraction or 0.001,
            score=wanted.score,
            skip_layers=wanted.skip_layers,
            universal_threshold=wanted.universal_threshold,
            universal_fraction=wanted.universal_fraction,
        )
        st.session_state[keys.SELECTED_CIRCUIT] = key, known
    return known

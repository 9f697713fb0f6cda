"""The session's circuit: opened from a file or from the saved circuits, or else selected from the activations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from cna_core.circuits.circuit import Circuit, CircuitSettings
from pages.common import findings, keys, measured_effects

if TYPE_CHECKING:  # the first page is drawn before torch is imported
    from cna_core.circuits.activations import Activations
    from cna_core.circuits.effects import Effects


def settings() -> CircuitSettings:
    """The sidebar's settings for selecting a circuit."""
    state = st.session_state
    score = state.get(keys.SCORE, "delta")
    # Effect includes universal neurons, here and on the command line, because it measures what each neuron does.
    leave_out = state.get(keys.LEAVE_OUT, True) and score != "attribution-patching"
    return CircuitSettings(
        fraction=float(state.get(keys.SIZE, 0.1)) / 100,
        score=score,
        skip_layers=int(state.get(keys.SKIP, 0)),
        universal_threshold=float(state.get(keys.THRESHOLD, 0.8)) if leave_out else None,
        universal_fraction=0.001,
    )


def opened() -> Circuit | None:
    """The circuit opened from a file or from the saved circuits, or None. It takes precedence over the selected one."""
    return st.session_state.get(keys.OPENED_CIRCUIT)


def transfer_note() -> str:
    """That the opened circuit was found on another model, in one sentence; "" if it was not."""
    circuit = opened()
    source = circuit.settings.transferred_from if circuit is not None else None
    return f"Transfer: this circuit was found on {source}." if source else ""


def open_circuit(circuit: Circuit | None, name: str | None = None) -> None:
    """Show a circuit from a file, or a saved one with its name; None goes back to the selected circuit."""
    st.session_state[keys.OPENED_CIRCUIT] = circuit
    st.session_state[keys.OPENED_CIRCUIT_NAME] = name


def from_upload(content: bytes, name: str) -> Circuit:
    """The circuit in an uploaded file. A neural-steering file is assumed to belong to the model whose gate was found.

    Raises:
        CircuitError: the file is not a circuit, or belongs to a model other than the one whose gate was found.
    """
    recorded = findings.activations()
    identity = recorded.model if recorded else None
    uploaded = Circuit.from_json(content, identity, name)
    if recorded is None:
        return uploaded
    from cna_core.circuits.attribution import with_statistics

    uploaded.check_model(recorded.model)
    return with_statistics(uploaded, recorded)


def current() -> Circuit | None:
    """The session's circuit: the opened one, else the one selected from the activations or the effects, else None."""
    if opened() is not None:
        return opened()
    recorded = findings.activations()
    if recorded is None:
        return None
    wanted, effects = settings(), None
    if wanted.score == "attribution-patching":
        effects = measured_effects.to_select_from()
        if effects is None:
            return None  # `first_steps.offer` offers to measure them
    key = (findings.finding_key(), wanted.model_dump_json(), None if effects is None else effects.settings.layers)
    known_key, known = st.session_state.get(keys.SELECTED_CIRCUIT, (None, None))
    if known_key != key:
        known = _selected(recorded, effects, wanted.fraction or 0.001, wanted)
        st.session_state[keys.SELECTED_CIRCUIT] = key, known
    return known


def of_sizes(fractions: Sequence[float]) -> dict[float, Circuit]:
    """Circuits of these sizes by the sidebar's other settings, by size; none while no circuit can be selected."""
    recorded, wanted = findings.activations(), settings()
    effects = measured_effects.to_select_from() if wanted.score == "attribution-patching" else None
    if recorded is None or (effects is None and wanted.score == "attribution-patching"):
        return {}
    layers = None if effects is None else effects.settings.layers
    key = (findings.finding_key(), wanted.model_dump_json(exclude={"fraction"}), tuple(fractions), layers)
    known_key, known = st.session_state.get(keys.CIRCUITS_OF_SIZES, (None, {}))
    if known_key != key:
        from cna_core.evaluation.dials import circuits_by_fraction

        known = circuits_by_fraction(_selected(recorded, effects, max(fractions), wanted), fractions)
        st.session_state[keys.CIRCUITS_OF_SIZES] = key, known
    return known


def _selected(recorded: "Activations", effects: "Effects | None", fraction: float, wanted: CircuitSettings) -> Circuit:
    from cna_core.circuits.attribution import attribute

    return attribute(
        recorded if effects is None else effects,
        fraction=fraction,
        score=wanted.score,
        skip_layers=wanted.skip_layers,
        universal_threshold=wanted.universal_threshold,
        universal_fraction=wanted.universal_fraction,
        activations=None if effects is None else recorded,
    )

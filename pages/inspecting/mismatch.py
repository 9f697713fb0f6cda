"""What a page shows if the circuit does not belong to the chosen model: the reason, and two ways to continue."""

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.models.catalog import catalog
from cna_core.models.layout import ModelIdentity
from pages.common import chosen_circuit, findings, keys, session
from pages.common.plain import plain, tell_error


def draw(error: CnaError) -> None:
    """Draw the reason, and for an opened circuit a button for each remedy."""
    tell_error(error, icon=":material/error:")
    opened = chosen_circuit.opened()
    if opened is None:
        return
    with st.container(horizontal=True):
        st.button(
            "Back to this model's circuit",
            key="mismatch-back",
            icon=":material/undo:",
            type="primary",
            on_click=chosen_circuit.open_circuit,
            args=(None,),
        )
        recorded = findings.activations()
        if recorded is not None and recorded.model.layout == opened.model.layout:
            st.button(
                f"Apply it to {plain(recorded.model.name)} (transfer)",
                key="mismatch-transfer",
                icon=":material/move_down:",
                help="The same neurons in this model. Every chart then says where the circuit was found.",
                on_click=_transfer,
                args=(opened, recorded.model),
            )
        if opened.model.name in catalog() and opened.model.name != session.model_name():
            st.button(
                f"Load {catalog()[opened.model.name].title}",
                key="mismatch-load",
                icon=":material/swap_horiz:",
                on_click=_choose,
                args=(opened.model.name,),
            )


def _transfer(circuit: Circuit, identity: ModelIdentity) -> None:
    chosen_circuit.open_circuit(circuit.transferred_to(identity))


def _choose(name: str) -> None:
    st.session_state[keys.MODEL] = name

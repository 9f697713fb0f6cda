"""Neurons: how activations are distributed in every layer, and everything about one neuron."""

from typing import Any

import pandas as pd
import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence
from cna_core.errors import CnaError
from pages.common import address, chosen_circuit, findings, first_steps, keys, reporting
from pages.inspecting import alike, card, distributions, evidence, gallery, linked, mismatch, panes, picking, table

VIEWS = {"gallery": "Gallery", "alike": "Which write alike"}


def draw() -> None:
    panes.apply()
    st.title("What does each neuron do?")
    linked.restore("distribution", distributions.PICTURES)
    linked.restore("each", VIEWS)
    finding = findings.finding()
    if finding is None:
        st.markdown(
            "See how activations are distributed in each layer, and what a single neuron does. **Find the circuit "
            "first.**"
        )
        first_steps.offer()
        return
    try:
        circuit = chosen_circuit.current()
        if circuit is not None:
            circuit.check_model(finding.activations.model)
            _explore(finding.activations, circuit)
    except CnaError as error:
        mismatch.draw(error)


@st.fragment
def _explore(activations: Activations, circuit: Circuit) -> None:
    known = evidence.known(activations, circuit)
    if known is None:
        with st.spinner("Comparing with shuffled labels and with halves of the prompts …"):
            known = evidence.compute(activations, circuit)
    left, right = panes.side_by_side("card", [1, 1], gap="large")
    with left:
        distributions.draw(activations, circuit, known)
    with right:
        place = _choose(activations, circuit)
        card.draw(activations, circuit, known, place)
        card.draw_words(activations, place)
        card.draw_keepers(activations, place)
    _each(activations, circuit)
    _list(activations, circuit, known)
    address.write()


@st.fragment
def _each(activations: Activations, circuit: Circuit) -> None:
    """The circuit's neurons beside each other. Only a pick redraws more than this."""
    if st.session_state.pop(keys.PICKED_BELOW, False):
        st.rerun()
    st.subheader("The circuit's neurons", anchor=False)
    if linked.choose("The circuit's neurons", VIEWS, "each") == "alike":
        alike.draw(circuit)
    else:
        gallery.draw(activations, circuit)


def _choose(activations: Activations, circuit: Circuit) -> tuple[int, int]:
    """Number inputs for layer and neuron, to reach any neuron without a mouse."""
    layer, neuron = picking.picked_or_first(activations, circuit)
    widths = activations.model.layout.widths
    first, second, previous, following = st.columns([3, 3, 1, 1], vertical_alignment="bottom")
    # The keys name the neuron shown, so that a selection made elsewhere shows here too.
    keys = f"layer-of-{layer}.{neuron}", f"neuron-of-{layer}.{neuron}"
    pick: dict[str, Any] = {"on_change": picking.from_numbers, "args": (*keys, widths)}
    first.number_input("Layer", 0, len(widths) - 1, layer, key=keys[0], **pick)
    second.number_input("Neuron", 0, widths[layer] - 1, neuron, key=keys[1], **pick)
    position = circuit.position_of(layer, neuron)
    for column, step, icon, words in (
        (previous, -1, ":material/chevron_left:", "Previous neuron of the circuit by rank"),
        (following, 1, ":material/chevron_right:", "Next neuron of the circuit by rank"),
    ):
        target = 0 if position is None else position + step
        column.button(
            "",
            icon=icon,
            key=f"rank{step:+d}",
            help=words,
            width="stretch",
            disabled=not 0 <= target < len(circuit),
            on_click=picking.from_rank,
            args=(circuit, target),
        )
    return layer, neuron


def _list(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    st.subheader("The whole circuit", anchor=False)
    rows: pd.DataFrame = circuit.table(known.auc, known.selection_frequency)
    st.caption("Click a row to see the neuron above. Click a column heading to sort. The magnifying glass searches.")
    table.draw(circuit, known, "neurons-table", height=420)
    below = st.container(horizontal=True)
    with below:
        reporting.of_circuit("neurons-report", circuit, activations, known)
    below.download_button(
        "CSV",
        lambda: rows.to_csv(index=False),
        "circuit.csv",
        "text/csv",
        key="circuit-csv",
        icon=":material/download:",
        on_click="ignore",
    )
    below.download_button(
        "JSON",
        circuit.to_json,
        "circuit.json",
        "application/json",
        key="circuit-json",
        icon=":material/download:",
        on_click="ignore",
    )


draw()

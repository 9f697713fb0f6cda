"""The Gate page once the gate is found: the verdict, the map, the evidence, the circuit and its neurons."""

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.differ_and_act import differ_and_act
from cna_core.circuits.evidence import Evidence
from pages.common import address, findings, measured_effects, reporting
from pages.inspecting import (
    acting_panels,
    card,
    checks_panel,
    choices,
    evidence,
    gate_cards,
    gate_charts,
    panes,
    picking,
    table,
    verdict,
)


@st.fragment
def draw(finding: findings.Finding, circuit: Circuit) -> None:
    """Draw the map, the evidence and the circuit. A click redraws only this; the evidence follows the map."""
    activations = finding.activations
    top = st.empty()
    shown = choices.draw(activations.model.layout)
    body = st.empty()
    known = evidence.known(activations, circuit)
    if known is None:
        with top.container():
            _say(circuit, None)
        with body.container():
            gate_charts.draw_first(activations, circuit, shown)
            gate_cards.draw(finding, circuit, None)
        known = evidence.compute(activations, circuit)
    with top.container():
        _say(circuit, known)
    with body.container():
        gate_charts.draw(activations, circuit, known, shown)
        _compare_with_effects(activations, circuit)
        gate_cards.draw(finding, circuit, known)
        _neurons(activations, circuit, known, shown)
        acting_panels.draw(activations, circuit)
        reporting.of_circuit("gate-report", circuit, activations, known)
    address.write()


def _say(circuit: Circuit, known: Evidence | None) -> None:
    """The answer, and under it, smaller, its control."""
    by_effect = circuit.settings.score == "attribution-patching"
    with st.container(key="gate-verdict" if known else "gate-verdict-first", gap=None):
        st.markdown(verdict.answer(circuit))
        st.markdown(verdict.control(circuit, known, checks_panel.known(circuit).claim if by_effect else None))


def _compare_with_effects(activations: Activations, circuit: Circuit) -> None:
    effects, to_select_from = gate_charts.effects_known(activations), measured_effects.to_select_from()
    if effects is not None and to_select_from is not None:
        compared = differ_and_act(activations, to_select_from, len(circuit), layers=effects)
        st.markdown(verdict.differs_and_acts(compared))


def _neurons(activations: Activations, circuit: Circuit, known: Evidence, shown: choices.Shown) -> None:
    st.subheader("Neurons of the circuit", anchor=False)
    left, right = panes.side_by_side("neurons", [6, 5], gap="large")
    with left:
        what = "a row, or a dot or cell of the map," if shown.view == "map" else "a row"
        st.caption(f"Click {what} to see a neuron's details.")
        table.draw(circuit, known, "gate-table", columns=table.BY_SCORE[circuit.settings.score])
    with right:
        place = picking.picked_or_first(activations, circuit)
        card.draw(activations, circuit, known, place)
        card.draw_keepers(activations, place)
        st.page_link(
            "pages/neurons.py",
            label="The tokens it promotes, and its activation on any text",
            icon=":material/arrow_forward:",
        )

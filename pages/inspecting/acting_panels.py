"""The section of the Gate page that asks which neurons act: how few of them, whether checks pass, why this prompt."""

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from pages.inspecting import checks_panel, how_few_panel, linked, why_panel

PANELS = {"how-few": "How few neurons?", "checks": "Checks", "why": "Why this prompt?"}


def draw(activations: Activations, circuit: Circuit) -> None:
    """Draw the choice of a panel and the chosen one."""
    st.subheader("Which neurons act?", anchor=False)
    chosen = linked.choose("Which neurons act?", PANELS, "acting")
    if chosen == "why":
        why_panel.draw(activations, circuit)
    elif chosen == "checks":
        checks_panel.draw(circuit)
    else:
        how_few_panel.draw(activations)

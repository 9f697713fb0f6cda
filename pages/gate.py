"""Gate, the home page: where refusal sits in the model. A map of all neurons, the null comparison and the circuit.

The first page is drawn before torch is imported. Everything else of this page is in `pages/inspecting/found.py`.
"""

import streamlit as st

from cna_core.errors import CnaError
from pages.common import cards, chosen_circuit, findings, first_steps, libraries, session
from pages.common.plain import tell
from pages.inspecting import choices, filling, mismatch, model_choice, panes
from pages.touring import tour


def draw() -> None:
    panes.apply()
    st.title("Where does this model's refusal live?")
    choices.restore()
    finding = findings.finding()
    if finding is None:
        _teach()
        return
    if finding.note:
        tell(finding.note, icon=":material/info:")
    try:
        circuit = chosen_circuit.current()
        if circuit is None:
            first_steps.offer()
            return
        circuit.check_model(finding.activations.model)
        libraries.wait_on_page(libraries.SHOWING)
        from pages.inspecting import found

        found.draw(finding, circuit)
    except CnaError as error:
        mismatch.draw(error)


def _teach() -> None:
    page = st.empty()  # so that nothing of the first page stays on screen while the map fills
    if first_steps.under_way() is not None:
        with page.container(key="gate-filling"):
            first_steps.offer(filling.draw)
        return
    with page.container(key="gate-first"):
        st.markdown(
            "In an instruction-tuned model, a few MLP neurons separate requests that it refuses from requests that it "
            "answers. Find them, see where they sit, and compare with chance."
        )
        first_steps.offer()
        tour.offer()
        filling.draw_blank()
        model_choice.draw(session.contrast())
        cards.row(first_steps.steps(session.model_name(), session.contrast()))


draw()

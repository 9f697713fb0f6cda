"""The tour's card above the page: where the visitor is, and the ways on, back and out.

`?tour=1` in the address opens it, and `?tour=3` opens it at the third step. An address alone runs nothing: finding the
gate and asking the models wait for a click.
"""

from typing import TYPE_CHECKING

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from cna_core.errors import CnaError
from pages.common import address, chosen_circuit, findings, first_steps, keys, libraries
from pages.touring.route import STOPS, Stop, answer_seen

if TYPE_CHECKING:
    from cna_core.circuits.circuit import Circuit
    from pages.touring.steps import Step

FIND = "Find the gate, then go on"


def offer() -> None:
    """One quiet line for first visitors; nothing while the tour is on."""
    if _number() is None:
        st.button(
            "New here? Take the tour of one minute.",
            key="tour-offer",
            type="tertiary",
            icon=":material/tour:",
            on_click=_go,
            args=(1,),
        )


def draw(page: str) -> None:
    """Draw the card of the current step, if the tour is on.

    Args:
        page: the name of the page under the card.
    """
    number = _number()
    if number is None:
        return
    stop = STOPS[number - 1]
    if st.session_state.pop(keys.TOUR_GOES, False) and page != stop.page:
        address.open_page(stop.page)
    st.session_state[keys.TOUR_SAW] = answer_seen()
    with st.container(border=True, key="tour", gap="xsmall"):
        head = st.container(horizontal=True, vertical_alignment="center", gap="small")
        head.markdown(f":small[Tour, {number} of {len(STOPS)}]  **{stop.title}**", width="stretch")
        if page != stop.page:
            _elsewhere(head, number, stop)
            return
        circuit = _circuit()
        if circuit is None:
            _without_circuit(head, number)
        else:
            libraries.wait_on_page()
            st.markdown(_step(number).words(circuit))
            _buttons(head, number, circuit)


def catch_up() -> None:
    """Rerun if the last answer ended after the card was drawn, while the page was being drawn."""
    seen = answer_seen()
    if _number() is not None and seen.ended and seen != st.session_state.get(keys.TOUR_SAW):
        st.rerun()


def _elsewhere(head: DeltaGenerator, number: int, stop: Stop) -> None:
    st.markdown(f"The tour goes on at the page {stop.page.title()}.")
    with head:
        _button(f"Go to {stop.page.title()}", "tour-next", _go, number, primary=True)
        _button("End the tour", "tour-skip", _leave)


def _without_circuit(head: DeltaGenerator, number: int) -> None:
    """What is missing, and the click that gets it."""
    job, found = first_steps.under_way(), findings.finding() is not None
    if found:
        st.markdown("The gate is found, but these settings select no circuit: the page below says what is missing.")
    elif job is not None:
        st.markdown("The prompts run now, and the map fills with what they show. The tour goes on when it is full.")
    else:
        st.markdown("The tour shows your model's own neurons. So first the prompts run once, and the map fills.")
    with head:
        if number > 1:
            _button("Back", "tour-back", _go, number - 1)
        if job is None and not found:
            _button(FIND, "tour-next", _find, primary=True)
        _button("Skip the tour", "tour-skip", _leave)


def _buttons(head: DeltaGenerator, number: int, circuit: "Circuit") -> None:
    step = _step(number)
    with head:
        if number > 1:
            _button("Back", "tour-back", _go, number - 1)
        if not step.asked(circuit):
            _button(step.ask_label, "tour-next", _ask, number, primary=True)
        elif number < len(STOPS):
            _button(_step(number + 1).ask_label or "Next", "tour-next", _ask, number + 1, primary=True)
        else:
            _button("Finish", "tour-next", _leave, primary=True)
        if number < len(STOPS):
            _button("Skip the tour", "tour-skip", _leave)


def _button(label: str, key: str, then: object, *args: int, primary: bool = False) -> None:
    st.button(label, key=key, type="primary" if primary else "tertiary", on_click=then, args=args)  # type: ignore[arg-type]


def _number() -> int | None:
    """The current step, from 1; None while the tour is off."""
    return st.session_state.get(keys.TOUR)


def _step(number: int) -> "Step":
    """The step, for a circuit that is there. Importing it needs the libraries, for which `draw` has waited."""
    from pages.touring.steps import STEPS

    return STEPS[number - 1]


def _go(number: int) -> None:
    """Go to a step; the page is changed when the card is drawn."""
    st.session_state[keys.TOUR], st.session_state[keys.TOUR_GOES] = number, True
    circuit = _circuit()
    if circuit is not None:
        _step(number).enter(circuit)


def _ask(number: int) -> None:
    """Go to a step, and have Chat answer what it asks."""
    _go(number)
    circuit = _circuit()
    if circuit is not None:
        _step(number).ask(circuit)


def _find() -> None:
    _go(1)
    findings.start()


def _leave() -> None:
    for key in (keys.TOUR, keys.METER_MESSAGE):
        st.session_state.pop(key, None)


def _circuit() -> "Circuit | None":
    try:
        return chosen_circuit.current()
    except CnaError:
        return None  # the page says why

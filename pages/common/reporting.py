"""Report buttons: one HTML file of what a page shows, made when it is asked for."""

from collections.abc import Callable

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence
from cna_core.decoding.conversation import Conversation
from cna_core.evaluation.how_few import cached_how_few
from cna_core.evaluation.runs import Run
from cna_core.reports.circuit_report import circuit_report
from cna_core.reports.conversation_report import conversation_report
from cna_core.reports.page import Report
from cna_core.reports.run_report import run_report
from pages.common import session

HELP = "One HTML file with interactive charts, tables, settings and hashes. It opens without a network."


def of_circuit(key: str, circuit: Circuit, activations: Activations, evidence: Evidence) -> None:
    """The button for the circuit on the page."""

    def made() -> Report:
        how_few = cached_how_few(circuit.model, session.contrast())
        return circuit_report(circuit, activations=activations, evidence=evidence, how_few=how_few)

    _button("Report", key, made, "circuit-report", HELP)


def of_run(key: str, run: Run) -> None:
    """The buttons for a run: without answers, and with those that changed."""
    with st.popover("Report", icon=":material/description:", key=key, help=HELP):
        _button("Without answers", f"{key}-bare", lambda: run_report(run), "run-report")
        _button(
            "With the answers that changed, folded", f"{key}-full", lambda: run_report(run, with_answers=True), "run"
        )


def of_conversation(key: str, conversation: Conversation, circuit: Circuit) -> None:
    """The buttons for a chat: without answers, and with them."""
    _button("Report (HTML), without answers", f"{key}-bare", lambda: conversation_report(conversation, circuit), "chat")
    _button(
        "Report (HTML), answers folded",
        f"{key}-full",
        lambda: conversation_report(conversation, circuit, with_answers=True),
        "chat",
    )


def _button(label: str, key: str, make: Callable[[], Report], name: str, words: str | None = None) -> None:
    st.download_button(
        label,
        lambda: make().to_html(),
        f"{name}.html",
        "text/html",
        key=key,
        icon=":material/description:",
        on_click="ignore",
        help=words,
    )

"""The evidence beside the session's circuit, remembered by the process: it takes a second or two, then is at hand."""

import threading
from collections import OrderedDict

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence, examine
from cna_core.circuits.projection import held_out_auc

KEPT = 64


@st.cache_resource(show_spinner=False)
def _remembered() -> "tuple[OrderedDict[str, Evidence], threading.Lock]":
    return OrderedDict(), threading.Lock()


def known(activations: Activations, circuit: Circuit) -> Evidence | None:
    """The evidence, if it was computed before."""
    found, lock = _remembered()
    key = _key(activations, circuit)
    with lock:
        if key in found:
            found.move_to_end(key)
        return found.get(key)


def compute(activations: Activations, circuit: Circuit) -> Evidence:
    """The evidence, computed now and remembered.

    Raises:
        CircuitError: the circuit belongs to another model.
    """
    evidence = examine(activations, circuit)
    found, lock = _remembered()
    with lock:
        found[_key(activations, circuit)] = evidence
        while len(found) > KEPT:
            found.popitem(last=False)
    return evidence


def held_out(activations: Activations, circuit: Circuit) -> Interval | None:
    """AUC of prompt space on held-out prompts, remembered by the session."""
    found = st.session_state.setdefault("_held_out", {})
    key = _key(activations, circuit)
    if key not in found:
        found[key] = held_out_auc(activations, circuit)
    return found[key]


def _key(activations: Activations, circuit: Circuit) -> str:
    model = activations.model.model_dump_json()
    return "|".join([activations.sha256, model, circuit.settings.model_dump_json(), circuit.sha256])

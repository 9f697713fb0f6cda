"""The statistical evidence for the session's circuit. It takes a second or two to compute; the process caches it."""

import threading

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence, examine
from cna_core.circuits.projection import held_out_auc
from pages.common import keys, measured_effects
from pages.common.recent import Recent

KEPT = 64
_one_at_a_time = threading.Lock()


@st.cache_resource(show_spinner=False)
def _remembered() -> Recent[Evidence]:
    return Recent(KEPT)


def known(activations: Activations, circuit: Circuit) -> Evidence | None:
    """The evidence, if it was computed before."""
    return _remembered().get(identity(activations, circuit))


def compute(activations: Activations, circuit: Circuit) -> Evidence:
    """Compute the evidence and cache it; sessions that need the same wait for the first one.

    Raises:
        CircuitError: the circuit belongs to another model.
    """
    effects = measured_effects.known()
    if effects is not None and effects.model != activations.model:
        effects = None
    with _one_at_a_time:
        evidence = known(activations, circuit) or examine(activations, circuit, effects=effects)
        _remembered().put(identity(activations, circuit), evidence)
    return evidence


def held_out(activations: Activations, circuit: Circuit) -> Interval | None:
    """AUC of prompt space on held-out prompts, cached in the session."""
    kept: Recent[tuple[Interval | None]] = st.session_state.setdefault(keys.HELD_OUT, Recent(KEPT))
    key = identity(activations, circuit)
    found = kept.get(key)
    if found is None:
        found = (held_out_auc(activations, circuit),)
        kept.put(key, found)
    return found[0]


def identity(activations: Activations, circuit: Circuit) -> str:
    """Equal for the same activations and circuit, and as long as effects are known or not."""
    model = activations.model.model_dump_json()
    parts = [activations.sha256, model, circuit.settings.model_dump_json(), circuit.sha256]
    if circuit.settings.score == "attribution-patching":
        parts.append(f"effects known: {measured_effects.known() is not None}")
    return "|".join(parts)

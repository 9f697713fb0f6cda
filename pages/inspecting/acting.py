"""The layer panel's choices on the Gate page: what is drawn beside the circuit's neurons, and measuring the layers."""

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effects import Effects
from cna_core.evaluation.profile import CausalProfile
from pages.common import layer_profile
from pages.inspecting import linked as linked_choices

COUNTS, MASS, ACTS = "counts", "mass", "acts"
_NEWEST = "_beside_newest"
"""What could be drawn beside the circuit's neurons when the choice was set last."""


def beside(profile: CausalProfile | None, effects: Effects | None) -> str:
    """What is drawn beside the circuit's neurons. A new measurement is shown until another choice is made."""
    newest = ACTS if profile is not None else MASS if effects is not None else COUNTS
    if st.session_state.get(_NEWEST) != newest:
        linked = st.query_params.get("beside") if _NEWEST not in st.session_state else None
        st.session_state[_NEWEST] = newest
        st.session_state["beside"] = linked if linked in _options(profile, effects) else newest
    return linked_choices.shown(_options(profile, effects), "beside")


def offer(circuit: Circuit, effects: Effects | None) -> None:
    """Draw the choice of what to show in each layer, and the state of the measurement of layers."""
    profile = layer_profile.known(circuit)
    beside(profile, effects)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="layers-beside"):
        st.caption("In each layer:", width="content")
        linked_choices.choose("In each layer", _options(profile, effects), "beside")
        layer_profile.offer(circuit)


def _options(profile: CausalProfile | None, effects: Effects | None) -> dict[str, str]:
    options = {COUNTS: "circuit", MASS: "and |δ|" if effects is None else "and |δ| and effect"}
    return options if profile is None else options | {ACTS: "and layers ablated"}


def in_words(profile: CausalProfile) -> str:
    """The measurement in words: the effect of the whole circuit, and the layers with the largest effect alone."""
    layers = ", ".join(f"{layer} ({change:+.2f})" for layer, change in profile.strongest(3))
    whole = profile.whole_change
    return (
        f"Dots: the change in the chance of a refusal ({profile.baseline.mean():.2f} over {profile.prompts} prompts) "
        "when only this layer's part of the circuit is ablated, with 95 % intervals. Grey: the same number of random "
        f"neurons. Largest effects: layers {layers}. All layers together: {whole.value:+.2f} "
        f"({whole.low:+.2f} to {whole.high:+.2f})."
    )

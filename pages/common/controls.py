"""Controls of the session's circuit, remembered: they read stored activations and take a second or two."""

import streamlit as st

from cna_core.circuits import controls
from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit


def permutation_null(activations: Activations, circuit: Circuit) -> controls.PermutationNull:
    """The null of shuffled labels for this circuit's settings."""
    return _permutation_null(*_key(activations, circuit), activations, circuit)


def stability(activations: Activations, circuit: Circuit) -> controls.Stability:
    """Circuits from random halves of the prompts."""
    return _stability(*_key(activations, circuit), activations, circuit)


def _key(activations: Activations, circuit: Circuit) -> tuple[str, str]:
    return activations.sha256 + activations.model.model_dump_json(), circuit.settings.model_dump_json() + circuit.sha256


@st.cache_data(show_spinner="Shuffling the labels …", max_entries=64)
def _permutation_null(
    recorded: str, selected: str, _activations: Activations, _circuit: Circuit
) -> controls.PermutationNull:
    return controls.permutation_null(_activations, _circuit)


@st.cache_data(show_spinner="Halving the prompts …", max_entries=64)
def _stability(recorded: str, selected: str, _activations: Activations, _circuit: Circuit) -> controls.Stability:
    return controls.stability(_activations, _circuit)

"""Turn a click on a mark, a cell or a table row into a selected neuron."""

from typing import Any

import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.facts import has_neuron
from pages.common import address


def picked(activations: Activations) -> tuple[int, int] | None:
    """The (layer, neuron) that was selected, or that a link names; None if there is none in this model."""
    chosen = address.selected_neuron()
    return chosen if chosen is not None and has_neuron(activations, *chosen) else None


def picked_or_first(activations: Activations, circuit: Circuit) -> tuple[int, int]:
    """The (layer, neuron) whose card is shown: the selected one, or else the circuit's first."""
    return picked(activations) or (int(circuit.layers[0]), int(circuit.neurons[0]))


def from_chart(key: str) -> None:
    """Callback of a chart whose marks' customdata begins with (layer, neuron). An emptied selection changes nothing."""
    points = _selection(key).get("points") or []
    if points and (data := points[-1].get("customdata")) is not None:
        layer, neuron = (data[place] for place in ((0, 1) if isinstance(data, list) else ("0", "1")))
        address.select_neuron(round(layer), round(neuron))


def from_table(key: str, circuit: Circuit) -> None:
    """Callback of a table of the circuit in rank order. An emptied selection changes nothing."""
    rows = _selection(key).get("rows") or []
    if rows and rows[0] < len(circuit):
        address.select_neuron(int(circuit.layers[rows[0]]), int(circuit.neurons[rows[0]]))


def _selection(key: str) -> dict[str, Any]:
    state = st.session_state.get(key) or {}
    return state.get("selection") or {}


def from_rank(circuit: Circuit, position: int) -> None:
    """Callback of a button: select the neuron at this position in rank order, counted from 0."""
    address.select_neuron(int(circuit.layers[position]), int(circuit.neurons[position]))


def from_numbers(layer_key: str, neuron_key: str, widths: tuple[int, ...]) -> None:
    """Callback of two number inputs. A neuron beyond the layer's width becomes the layer's last one."""
    layer, neuron = int(st.session_state[layer_key]), int(st.session_state[neuron_key])
    address.select_neuron(layer, min(neuron, widths[layer] - 1))

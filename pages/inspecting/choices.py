"""The Gate page's choices: the view, the quantity that colours show, and the visible part of the map."""

from dataclasses import dataclass
from typing import Literal, cast

import streamlit as st

from cna_core.figures.neuron_cells import Order, Quantity
from cna_core.models.layout import NeuronLayout
from pages.inspecting import linked

View = Literal["map", "space", "prompts"]
VIEWS = {"map": "Map", "space": "3D", "prompts": "Prompt space"}
QUANTITIES = {"delta": "δ", "effect": "effect", "magnitude": "|δ|", "effect-size": "effect size"}
ORDERS = {"index": "by index", "value": "by value"}


@dataclass(frozen=True)
class Shown:
    """The choices. Ranges are (first, last), both included."""

    view: View
    quantity: Quantity
    order: Order
    layers: tuple[int, int]
    neurons: tuple[int, int]


def restore() -> None:
    """Read the choices from the address, before the widgets are drawn."""
    for key, options in (("view", VIEWS), ("quantity", QUANTITIES), ("order", ORDERS)):
        linked.restore(key, options)


def draw(layout: NeuronLayout) -> Shown:
    """Draw the controls and return the choices."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    with row:
        view = linked.choose("View", VIEWS, "view")
        if view == "map":
            linked.choose("Colour shows", QUANTITIES, "quantity")
            linked.choose("Neurons in order", ORDERS, "order")
    layers, neurons = (0, layout.layers - 1), (0, max(layout.widths) - 1)
    if view == "map":
        with row.popover("Zoom", icon=":material/zoom_in:").container(width=320):
            layers = linked.choose_range("layer", layers, "layers")
            neurons = linked.choose_range("neuron", neurons, "neurons")
            st.caption("Up to 768 neurons have a cell each. If more share a cell, it shows the strongest.")
            st.button("Show the whole map", key="zoom-out", on_click=linked.whole_ranges, args=(("layers", "neurons"),))
    quantity, order = linked.shown(QUANTITIES, "quantity"), linked.shown(ORDERS, "order")
    return Shown(cast(View, view), cast(Quantity, quantity), cast(Order, order), layers, neurons)

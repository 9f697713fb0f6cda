"""The charts of the Gate page: the map and the layer panel, the 3D view, and prompt space."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effects import Effects
from cna_core.circuits.evidence import Evidence
from cna_core.circuits.projection import project_prompts
from cna_core.errors import CnaError
from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.layers import layer_profile
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.space import neuron_space, prompt_space
from cna_core.progress_words import counted
from pages.common import charts, measured_effects, style
from pages.common.layer_profile import known as known_profile
from pages.common.plain import tell
from pages.inspecting import acting, panes, picking
from pages.inspecting.choices import Shown
from pages.inspecting.evidence import held_out, identity

HEATMAP, LAYERS = "gate-heatmap", "gate-layers"
SHARES = {acting.COUNTS: (4, 1), acting.MASS: (12, 7), acting.ACTS: (12, 7)}
"""The widths of the map and of the layer panel, by what the panel shows."""


def draw_first(activations: Activations, circuit: Circuit, shown: Shown) -> None:
    """Draw the map and the layers, which do not need the evidence."""
    profile, effects = known_profile(circuit), effects_known(activations)
    wide, narrow = panes.side_by_side("first", SHARES[acting.beside(profile, effects)])
    with wide:
        key = ("first map", *_about(activations, circuit, shown))
        figure = charts.kept(key, lambda: neuron_heatmap(**_map_of(activations, circuit, shown)))
        charts.draw(figure, f"{HEATMAP}-first", tall=True)
    with narrow:
        charts.draw(_layer_figure(circuit, shown, {}), "gate-layers-first", tall=True)
    st.caption("Comparing with shuffled labels and with halves of the prompts …")


def draw(activations: Activations, circuit: Circuit, evidence: Evidence, shown: Shown) -> None:
    """Draw the chosen view."""
    if shown.view == "space":
        _draw_space(activations, circuit)
    elif shown.view == "prompts":
        _draw_prompts(activations, circuit)
    elif shown.quantity == "effect" and effects_known(activations) is None:
        measured_effects.offer()
    else:
        _draw_map(activations, circuit, evidence, shown)


def _draw_map(activations: Activations, circuit: Circuit, evidence: Evidence, shown: Shown) -> None:
    """The map and the layers side by side, and under both how to read them and the choices for the layers."""
    profile, effects = known_profile(circuit), effects_known(activations)
    wide, narrow = panes.side_by_side("map", SHARES[acting.beside(profile, effects)])
    picked = picking.picked(activations)
    figure = charts.kept(
        ("map", *_about(activations, circuit, shown), picked),
        lambda: neuron_heatmap(
            **_map_of(activations, circuit, shown),
            universal=evidence.left_out,
            selection_frequency=evidence.selection_frequency,
            picked=picked,
            clickable_cells=True,
        ),
    )
    layers = _layers_of(activations, circuit, evidence, shown)
    with wide:
        charts.draw(figure, HEATMAP, on_select=lambda: picking.from_chart(HEATMAP), tall=True)
    with narrow:
        charts.draw(layers.figure, LAYERS, tall=True)
    with st.container(horizontal=True, vertical_alignment="top", gap="small", key="map-words"):
        charts.explain([f"**The map.** {_map_in_words(evidence, shown)}", f"**The layers.** {layers.words}"])
        charts.offer_downloads(
            figure,
            HEATMAP,
            data=lambda: circuit.table(evidence.auc, evidence.selection_frequency),
            data_name="The circuit's neurons (CSV)",
            help="Download the map",
        )
        charts.offer_downloads(
            layers.figure, LAYERS, data=lambda: pd.DataFrame(layers.table), help="Download the layers"
        )
    acting.offer(circuit, effects)


def _map_in_words(evidence: Evidence, shown: Shown) -> str:
    return (
        f"{_colours(shown)} Dots are the circuit's neurons; where dots would cover each other, dark bars show how "
        f"dense they are.{_rings(evidence)} The colour scale ends at the 99.5th percentile. Click a mark or a cell to "
        "see the neuron below."
    )


def _about(activations: Activations, circuit: Circuit, shown: Shown) -> tuple[object, ...]:
    """What the map depends on."""
    effects = effects_known(activations)
    return identity(activations, circuit), shown, effects and (effects.sha256, effects.settings)


def _map_of(activations: Activations, circuit: Circuit, shown: Shown) -> dict[str, Any]:
    return {
        "statistics": NeuronStatistics.of(activations, effects_in_all_layers(activations)),
        "circuit": circuit,
        "quantity": shown.quantity,
        "order": shown.order,
        "layers": shown.layers,
        "neurons": shown.neurons,
        "dark": style.is_dark(),
    }


def effects_known(activations: Activations) -> Effects | None:
    """The effects of this model in all layers, or None if they are not measured yet."""
    effects = measured_effects.known()
    return effects if effects is not None and effects.model == activations.model else None


def effects_in_all_layers(activations: Activations) -> NDArray[np.float32] | None:
    """(total,) float32: the mean effect of every neuron, or None."""
    effects = effects_known(activations)
    return None if effects is None else effects.effect


def _rings(evidence: Evidence) -> str:
    if not len(evidence.left_out):
        return ""
    return " Rings are universal neurons, which are active on most prompts and are left out."


def _colours(shown: Shown) -> str:
    """How to read the map's rows and colours for the chosen order and quantity."""
    row = (
        "Each row is a layer, each column a slice of its neurons"
        if shown.order == "index"
        else "Each row is a layer, with its neurons sorted from the largest value to the smallest"
    )
    if shown.quantity == "effect":
        return (
            f"{row}. Orange neurons push towards refusal: ablating them is estimated to lower it. Blue neurons push "
            "against it."
        )
    if shown.quantity == "magnitude":
        return f"{row}. The stronger the colour, the larger the difference between the means on the two prompt sets."
    scale = ", in units of the neuron's standard deviation" if shown.quantity == "effect-size" else ""
    return f"{row}. Orange neurons are more active on refused prompts, blue neurons less active{scale}."


class _Layers(NamedTuple):
    """The layer panel.

    Args:
        figure: the chart.
        words: how to read it.
        table: its data, by column.
    """

    figure: go.Figure
    words: str
    table: dict[str, Any]


def _layers_of(activations: Activations, circuit: Circuit, evidence: Evidence, shown: Shown) -> _Layers:
    profile, effects = known_profile(circuit), effects_known(activations)
    beside = acting.beside(profile, effects)
    table: dict[str, Any] = {
        "layer": range(circuit.model.layers),
        "circuit_neurons": circuit.layer_counts,
        "mass": evidence.mass,
        "mass_by_activation_scale": evidence.mass_normalised,
    }
    words = ["Bars: the circuit's neurons in each layer."]
    more: dict[str, Any] = {}
    if evidence.null is not None:
        more["null_counts"] = low, mean, high = evidence.null.layer_band()
        table |= {"shuffled_low": low, "shuffled_mean": mean, "shuffled_high": high}
        words.append("Grey: 95 % interval with shuffled labels. A bar that ends inside it is no more than chance.")
    if effects is not None:
        table["share_of_effect"] = effects.layer_shares
    if beside == acting.MASS and effects is not None:
        more |= {"mass": evidence.mass, "effect_share": effects.layer_shares}
        words.append(
            "Black: each layer's share of |δ|, where activations differ. Orange: its share of the effect towards "
            "refusal, where neurons act."
        )
    elif beside == acting.MASS:
        more |= {"mass": evidence.mass, "mass_normalised": evidence.mass_normalised, "null_mass": evidence.null_mass}
        words.append(
            "On the right, grey belongs to the raw mass. Hollow marks: the mass divided by the layer's activation "
            "scale, so that a layer with large activations does not stand out for that reason."
        )
    if profile is not None:
        alone, random = profile.bands()
        table |= {"change_of_refusal_if_ablated": alone[1], "change_low": alone[0], "change_high": alone[2]}
        table |= {"random_low": random[0], "random_mean": random[1], "random_high": random[2]}
        if beside == acting.ACTS:
            more |= {"causal_effect": alone, "null_effect": random}
            words.append(acting.in_words(profile))
    return _Layers(_layer_figure(circuit, shown, more), " ".join(words), table)


def _layer_figure(circuit: Circuit, shown: Shown, more: dict[str, Any]) -> go.Figure:
    """The layer panel with these further arguments of `layer_profile`: arrays, or None."""
    content = tuple((name, np.asarray(values).tobytes()) for name, values in more.items() if values is not None)
    return charts.kept(
        ("layers", circuit.layer_counts.tobytes(), shown.layers, content),
        lambda: layer_profile(circuit.layer_counts, layers=shown.layers, dark=style.is_dark(), **more),
    )


def _draw_space(activations: Activations, circuit: Circuit) -> None:
    charts.show(
        neuron_space(NeuronStatistics.of(activations), circuit, dark=style.is_dark()),
        "gate-space",
        "Height is δ, large points are the circuit, and the gold line marks the start of the final 10 % of layers. "
        "Drag to rotate. A layer without points has no neurons among the strongest.",
        data=circuit.table,
    )


def _draw_prompts(activations: Activations, circuit: Circuit) -> None:
    try:
        projection = project_prompts(activations, circuit)
    except CnaError as error:
        tell(error, icon=":material/info:")
        return
    charts.show(
        prompt_space(
            projection,
            activations.is_positive,
            activations.prompts,
            held_out=held_out(activations, circuit),
            dark=style.is_dark(),
        ),
        "gate-prompts",
        f"Each dot is a prompt, placed by the activations of the circuit's {counted(len(circuit), 'neuron')}. AUC says "
        "how well the first axis separates the sets: 1 is perfect, 0.5 is chance. Held out: the circuit and the axis "
        "come from half of the prompts, the AUC from the other half.",
        data=lambda: pd.DataFrame(
            {
                "prompt": activations.prompts,
                "positive": activations.is_positive,
                "first_component": projection.points[:, 0],
                "second_component": projection.points[:, 1],
            }
        ),
    )

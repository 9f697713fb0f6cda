"""Charts of how activations and δ are distributed in each layer."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence, cutoff
from cna_core.figures.neurons import activation_ridgelines, delta_ridgelines, final_layer_histograms
from pages.common import charts, style
from pages.inspecting import linked

PICTURES = {"ridges": "All neurons by δ", "sets": "The circuit by prompt set"}


def draw(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    """Draw all layers in the chosen chart, and the final layers enlarged."""
    chosen = linked.choose("Distributions", PICTURES, "distribution")
    {"ridges": _ridges, "sets": _sets}[chosen](activations, circuit, known)
    _final(activations, circuit, known)


def _name(circuit: Circuit) -> str:
    return "effect size" if circuit.settings.score == "effect-size" else "δ"


def _values(activations: Activations, circuit: Circuit) -> NDArray[np.float32]:
    """(total,) what the circuit was ranked by; δ for a circuit by effect, whose score activations do not hold."""
    return activations.effect_size if circuit.settings.score == "effect-size" else activations.delta


def _cutoff(activations: Activations, circuit: Circuit, known: Evidence) -> float:
    """The circuit's smallest |value|; for a circuit by effect, that of a circuit of its size by δ."""
    if circuit.settings.score != "attribution-patching":
        return known.cutoff
    return cutoff(activations, attribute(activations, fraction=None, top_k=len(circuit)))


def _whose(circuit: Circuit) -> str:
    """A remark where the cutoff is not the circuit's own."""
    if circuit.settings.score != "attribution-patching":
        return ""
    return " This circuit was selected by effect: the cutoff is that of a circuit of its size by δ."


def _table(activations: Activations, circuit: Circuit) -> pd.DataFrame:
    layout, values = activations.model.layout, _values(activations, circuit)
    rows = [
        {"layer": layer, **pd.Series(part).describe(percentiles=[0.001, 0.01, 0.5, 0.99, 0.999]).to_dict()}
        for layer, part in enumerate(layout.split(values))
    ]
    return pd.DataFrame(rows)


def _ridges(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        delta_ridgelines(
            _values(activations, circuit),
            activations.model.layout,
            cutoff=_cutoff(activations, circuit, known),
            name=_name(circuit),
            dark=style.is_dark(),
        ),
        "ridges",
        "Each ridge counts a layer's neurons by value, on a logarithmic scale so that single neurons in the tails are "
        "visible. Beyond the dashed lines, values are as large as in the circuit. Gold: the final 10 % of layers."
        + _whose(circuit),
        data=lambda: _table(activations, circuit),
    )


def _final(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        final_layer_histograms(
            _values(activations, circuit),
            activations.model.layout,
            cutoff=_cutoff(activations, circuit, known),
            name=_name(circuit),
            dark=style.is_dark(),
        ),
        "final-layers",
        "The number of neurons by value, on a logarithmic scale and the same axes in every panel. Orange: as large as "
        "the circuit's smallest or larger. These neurons are in the circuit or, if universal, left out of it."
        + _whose(circuit),
        data=lambda: _table(activations, circuit),
    )


def _sets(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        activation_ridgelines(
            activations.values[:, torch.from_numpy(circuit.flat)].float().numpy(),
            activations.is_positive,
            circuit.layers,
            activations.model.layout,
            directions=activations.delta[circuit.flat],
            dark=style.is_dark(),
        ),
        "sets",
        "Only the circuit's neurons, with signs flipped so that each one's mean is higher on positive prompts. The "
        "further orange lies to the right of teal, the better the layer separates refused from answered requests.",
        data=lambda: circuit.table(known.auc, known.selection_frequency),
    )

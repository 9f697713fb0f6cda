"""How neurons are distributed layer by layer: pictures of the same activations."""

import pandas as pd
import torch

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import scores
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence
from cna_core.figures.neurons import activation_ridgelines, delta_ridgelines, final_layer_histograms
from pages.common import charts, style
from pages.inspecting import linked

PICTURES = {"ridges": "All neurons by δ", "sets": "The circuit by prompt set"}


def draw(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    """Every layer in one of two pictures, and the final layers larger."""
    chosen = linked.choose("Distributions", PICTURES, "distribution")
    {"ridges": _ridges, "sets": _sets}[chosen](activations, circuit, known)
    _final(activations, circuit, known)


def _name(circuit: Circuit) -> str:
    return "δ" if circuit.settings.score == "delta" else "effect size"


def _table(activations: Activations, circuit: Circuit) -> pd.DataFrame:
    layout, values = activations.model.layout, scores(activations, circuit.settings.score)
    rows = [
        {"layer": layer, **pd.Series(part).describe(percentiles=[0.001, 0.01, 0.5, 0.99, 0.999]).to_dict()}
        for layer, part in enumerate(layout.split(values))
    ]
    return pd.DataFrame(rows)


def _ridges(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        delta_ridgelines(
            scores(activations, circuit.settings.score),
            activations.model.layout,
            cutoff=known.cutoff,
            name=_name(circuit),
            dark=style.is_dark(),
        ),
        "ridges",
        "A ridge counts a layer's neurons by value, on a logarithmic scale so that single ones in the tails are seen. "
        "Beyond the dashed lines δ is as large as in the circuit; gold: the final 10 % of layers.",
        data=lambda: _table(activations, circuit),
    )


def _final(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        final_layer_histograms(
            scores(activations, circuit.settings.score),
            activations.model.layout,
            cutoff=known.cutoff,
            name=_name(circuit),
            dark=style.is_dark(),
        ),
        "final-layers",
        "Neurons by value, logarithmic counts, the same axes in every panel; orange is at least as large as the "
        "circuit's smallest, in the circuit or (as universal neurons) left out of it.",
        data=lambda: _table(activations, circuit),
    )


def _sets(activations: Activations, circuit: Circuit, known: Evidence) -> None:
    charts.show(
        activation_ridgelines(
            activations.values[:, torch.from_numpy(circuit.flat)].float().numpy(),
            activations.is_positive,
            circuit.layers,
            activations.model.layout,
            directions=circuit.delta,
            dark=style.is_dark(),
        ),
        "sets",
        "The circuit's neurons only, each turned so that its mean on positive prompts is the higher: the further "
        "orange lies to the right of teal, the better the layer's neurons tell refused from answered requests.",
        data=lambda: circuit.table(known.auc, known.selection_frequency),
    )

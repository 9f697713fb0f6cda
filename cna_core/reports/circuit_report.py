"""The report of a circuit: its verdict, map, layers, neurons, and how to find it again."""

import json
import shlex

import numpy as np
import pandas as pd

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence
from cna_core.evaluation.how_few import HowFew
from cna_core.evaluation.runs import versions
from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.how_few import how_few_neurons
from cna_core.figures.layers import layer_profile
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.percents import percent
from cna_core.progress_words import counted
from cna_core.prompts.sets import ContrastSet
from cna_core.reports.page import Report, Section

ROWS = 500
"""How many neurons the table lists."""
FINAL = 0.10
"""The share of the layers that a circuit's concentration is about."""


def circuit_report(
    circuit: Circuit,
    *,
    activations: Activations | None = None,
    evidence: Evidence | None = None,
    how_few: HowFew | None = None,
    verdict: str | None = None,
) -> Report:
    """The report of a circuit.

    Args:
        activations: what it was selected from; adds the map of all neurons.
        evidence: its controls; adds what chance alone gives.
        how_few: which sizes suffice, where that was measured.
        verdict: the finding in words; None: where the circuit sits.
    """
    sections = []
    if activations is not None:
        figure = neuron_heatmap(
            NeuronStatistics.of(activations),
            circuit=circuit,
            universal=evidence.left_out if evidence is not None else np.zeros(0, dtype=np.int64),
        )
        words = "A row is a layer, a column a slice of its neurons; dots are the circuit, rings universal neurons."
        sections.append(Section("Map of all neurons", figure=figure, how_to_read=words))
    sections += [
        _layers(circuit, evidence),
        *([_how_few(how_few)] if how_few is not None else []),
        _neurons(circuit, evidence),
        about_circuit(circuit),
        Section("How to reproduce it", code="\n".join(attribute_commands(circuit))),
    ]
    name = circuit.model.name
    return Report(f"Refusal circuit of {name}", verdict or _verdict(circuit, evidence), tuple(sections))


def about_circuit(circuit: Circuit) -> Section:
    """Model, settings, hashes and versions."""
    model, prompts = circuit.model, circuit.prompts
    settings = circuit.settings.model_dump(mode="json", exclude_none=True)
    facts = [
        ("model", model.name),
        ("revision", model.revision),
        ("number format", model.dtype),
        ("layers", f"{model.layers} · {model.layout.total:,} neurons"),
        ("circuit SHA-256", circuit.sha256),
        ("prompts", f"{prompts.positive} positive, {prompts.negative} negative"),
        ("prompts SHA-256", prompts.sha256),
        ("settings", json.dumps(settings)),
        *((f"version of {name}", version) for name, version in versions().items()),
    ]
    return Section("What it was found with", facts=tuple(facts))


def attribute_commands(circuit: Circuit) -> list[str]:
    """The command that selects the circuit again; a comment where the prompts are not the built-in ones."""
    settings = circuit.settings
    words = ["refusal-gate", "attribute", circuit.model.name]
    fraction, neurons = settings.fraction, len(circuit)
    rounded = fraction is not None and max(1, round(fraction * circuit.model.layout.total)) == neurons
    words += ["--fraction", f"{fraction:g}"] if rounded else ["--top-k", str(neurons)]
    words += ["--score", settings.score]
    if settings.skip_layers:
        words += ["--skip-layers", str(settings.skip_layers)]
    threshold = settings.universal_threshold
    words += ["--no-universal"] if threshold is None else ["--universal", f"{threshold:g}"]
    command = " ".join(map(shlex.quote, [*words, "--out", "circuit.json"]))
    if ContrastSet.builtin().sha256 == circuit.prompts.sha256:
        return [command]
    own = "--positive positive.txt --negative negative.txt"
    return [f"# Found with other prompts than the built-in ones: add {own} with yours.", command]


def where_it_sits(circuit: Circuit) -> str:
    """The share of the circuit in the final 10 % of layers, as a sentence without its full stop."""
    sit = "sits" if len(circuit) == 1 else "sit"
    share = percent(circuit.concentration(FINAL))
    return f"{share} of the {counted(len(circuit), 'neuron')} {sit} in the final {percent(FINAL)} of layers"


def _verdict(circuit: Circuit, evidence: Evidence | None) -> str:
    share = where_it_sits(circuit)
    if evidence is None or evidence.null is None:
        return f"{share}."
    late, reach = evidence.null.concentration(FINAL), evidence.null.chance()
    return (
        f"{share}; with shuffled labels it is {percent(late.mean)} ({percent(late.low)} to {percent(late.high)}), and "
        f"{reach.mean:.0f} neurons ({reach.low:.0f} to {reach.high:.0f}) differ as much as the circuit's do."
    )


def _layers(circuit: Circuit, evidence: Evidence | None) -> Section:
    if evidence is None:
        figure, words = layer_profile(circuit.layer_counts), "Bars: the number of the circuit's neurons in each layer."
    else:
        figure = layer_profile(
            circuit.layer_counts,
            null_counts=None if evidence.null is None else evidence.null.layer_band(),
            mass=evidence.mass,
            mass_normalised=evidence.mass_normalised,
            null_mass=evidence.null_mass,
        )
        words = "Grey: what shuffled labels give (95 %). Hollow: after dividing each layer by its activation scale."
    return Section("Layer by layer", figure=figure, how_to_read=words)


def _how_few(found: HowFew) -> Section:
    words = "Refusal against the number of neurons that are ablated."
    return Section("How few neurons?", figure=how_few_neurons(found), how_to_read=words)


def _neurons(circuit: Circuit, evidence: Evidence | None) -> Section:
    table: pd.DataFrame = circuit.table(
        None if evidence is None else evidence.auc, None if evidence is None else evidence.selection_frequency
    )
    words = () if len(table) <= ROWS else (f"The first {ROWS} of {len(table):,}, by rank.",)
    return Section("Neurons of the circuit", words, table=table.head(ROWS))

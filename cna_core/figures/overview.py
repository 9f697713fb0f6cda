"""The default chart of each kind of object, drawn by `cna.plot` and by the objects' `plot()`."""

from functools import singledispatch

import plotly.graph_objects as go

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Run
from cna_core.figures.dose_response import dose_response
from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.layers import layer_profile
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.sweep_curves import curves_of


@singledispatch
def chart_of(thing: object, **_options: object) -> go.Figure:
    """The default chart of an object.

    Raises:
        CnaError: there is no chart for this kind of object.
    """
    raise CnaError(f"There is no chart for a {type(thing).__name__}: pass a circuit, activations or a run.")


@chart_of.register
def _(circuit: Circuit, *, activations: Activations | None = None, dark: bool = False) -> go.Figure:
    """The circuit's neurons in each layer, or, with activations, the circuit on the map of all neurons."""
    if activations is None:
        return layer_profile(circuit.layer_counts, dark=dark)
    circuit.check_model(activations.model)
    return neuron_heatmap(NeuronStatistics.of(activations), circuit=circuit, dark=dark)


@chart_of.register
def _(activations: Activations, *, dark: bool = False) -> go.Figure:
    """δ of every neuron."""
    return neuron_heatmap(NeuronStatistics.of(activations), dark=dark)


@chart_of.register
def _(run: Run, *, fraction: float | None = None, dark: bool = False) -> go.Figure:
    """Refusals and side effects by strength."""
    panels = [
        (measure, curves_of(run, measure.drawn_field(), fraction)) for measure in measures_of(run) if measure.shown
    ]
    if not panels:
        raise CnaError("The run has no results yet that can be drawn: resume it first.")
    return dose_response(panels, prompts=max((point.prompts for point in run.points), default=None), dark=dark)

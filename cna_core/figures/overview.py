"""The usual chart of each object, chosen by what it is: what `cna.plot` and the objects' `plot()` draw."""

from functools import singledispatch

import plotly.graph_objects as go

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Run
from cna_core.figures.dose_response import dose_response
from cna_core.figures.heatmap import NeuronStatistics, neuron_heatmap
from cna_core.figures.layers import layer_profile
from cna_core.figures.sweep_curves import curves_of


@singledispatch
def chart_of(thing: object, **_options: object) -> go.Figure:
    """The chart that shows what the thing is about.

    Raises:
        CnaError: there is none for such a thing.
    """
    raise CnaError(f"There is no chart of a {type(thing).__name__}; give a circuit, activations or a run.")


@chart_of.register
def _(circuit: Circuit, *, activations: Activations | None = None, dark: bool = False) -> go.Figure:
    """The circuit's neurons in each layer, or on the map of all neurons where their activations are given."""
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
    """Refusal and what it costs, over strength."""
    panels = [
        (measure, curves_of(run, measure.drawn_field(), fraction)) for measure in measures_of(run) if measure.shown
    ]
    if not panels:
        raise CnaError("The run has measured nothing yet that is drawn over strength.")
    return dose_response(panels, prompts=max((point.prompts for point in run.points), default=None), dark=dark)

"""The map before the gate is found: blank on the first page, then filling while prompts are recorded.

It has the size and place of the finished map, so nothing moves when the circuit appears.
"""

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from cna_core.figures.heatmap import blank_map, neuron_heatmap
from cna_core.figures.layers import layer_profile
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.models.catalog import catalog
from cna_core.models.layout import NeuronLayout
from cna_core.progress_words import counted
from pages.common import charts, chosen_circuit, findings, jobs, session, style
from pages.inspecting import panes

SHARES = (4, 1)
TEACHES = (
    "Every neuron will be a cell of this map:<br>"
    "<b>orange</b> where it is more active on requests that are refused,<br>"
    "<b>blue</b> where it is less active."
)
WAITS = "The map appears here while the prompts run."


def draw_blank(words: str = TEACHES) -> None:
    """Draw the empty map of the chosen model, if the catalog says how many neurons it has."""
    entry = catalog().get(session.model_name())
    if entry is None:
        st.caption(WAITS)
        return
    layout = NeuronLayout((entry.neurons_per_layer,) * entry.layers)
    blank = charts.kept(("blank map", layout.widths, words), lambda: blank_map(layout, words, dark=style.is_dark()))
    nothing = np.zeros(layout.layers, int)
    _beside("gate-blank", blank, charts.kept(("blank layers", layout.layers), lambda: _layers(nothing)))


def draw(job: jobs.Job) -> None:
    """Draw the map so far, with the neurons that would be the circuit if it were selected now."""
    preview = job.preview
    if not isinstance(preview, findings.Preview) or preview.delta is None:
        draw_blank(WAITS)
        return
    count = max(1, round((chosen_circuit.settings().fraction or 0.001) * preview.layout.total))
    leading = strongest(preview.delta, count)
    figure = neuron_heatmap(NeuronStatistics(preview.layout, preview.delta), leading=leading, dark=style.is_dark())
    layers = np.bincount(preview.layout.locate(leading)[0], minlength=preview.layout.layers)
    _beside("gate-preview", figure, _layers(layers))
    st.caption(
        f"After {counted(preview.prompts_done, 'prompt')}. Dots are the neurons that differ most so far, {count:,} of "
        "them: watch them settle. The circuit is selected after the last prompt."
    )


def strongest(delta: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """(count,) flat positions of the neurons with the largest |δ|, in no order."""
    return np.argpartition(-np.abs(delta), min(count, len(delta)) - 1)[:count].astype(np.int64)


def _layers(counts: NDArray[np.integer]) -> go.Figure:
    return layer_profile(counts, dark=style.is_dark())


def _beside(key: str, figure: go.Figure, layers: go.Figure) -> None:
    wide, narrow = panes.side_by_side("filling", SHARES)
    with wide:
        charts.draw(figure, key, tall=True)
    with narrow:
        charts.draw(layers, "gate-filling-layers", tall=True)

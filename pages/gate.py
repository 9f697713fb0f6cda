"""Gate, the home page: where does this model's refusal live? One map, its null beside it, and the circuit."""

import streamlit as st

from cna_core.circuits.attribution import universal_neurons
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.figures.heatmap import NeuronStatistics, neuron_heatmap
from pages.common import cards, charts, controls, jobs, session, style

HEATMAP = "gate-heatmap"


def draw() -> None:
    st.title("Where does this model's refusal live?")
    job = jobs.get(session.finding_key())
    finding = session.finding()
    if finding is None:
        if job is not None and not job.finished and not job.stop.is_set():
            jobs.watch(job.key, _draw_preview)
            return
        jobs.tell_outcome(job)
        _teach()
        return
    circuit = session.circuit()
    if circuit is None:
        return
    if finding.note:
        st.info(finding.note, icon=":material/info:")
    try:
        circuit.check_model(finding.activations.model)
    except CnaError as error:
        st.error(str(error))
        return
    _cards(finding, circuit)
    _map(finding, circuit)


def _teach() -> None:
    st.markdown(
        "When an instruction-tuned model refuses, a few MLP neurons carry the decision. *Find the gate* runs prompts "
        "that the model refuses and matched ones that it does not, and compares every neuron. "
        "**No circuit yet: pick a model on the left and press *Find the gate*** — about 10 s on a laptop, "
        "after a download the first time."
    )


def _draw_preview(job: jobs.Job) -> None:
    preview = job.preview
    if not isinstance(preview, session.Preview) or preview.delta is None:
        st.caption("The map fills as prompts go through.")
        return
    statistics = NeuronStatistics(preview.layout, preview.delta)
    st.plotly_chart(neuron_heatmap(statistics, dark=style.is_dark()), key=f"{HEATMAP}-preview")
    st.caption(f"δ so far, from {preview.prompts_done} prompts.")


def _cards(finding: session.Finding, circuit: Circuit) -> None:
    null = controls.permutation_null(finding.activations, circuit)
    shuffled = null.concentration(0.10)
    left_out = universal_neurons(finding.activations)
    cards.row(
        [
            cards.Card("Neurons in the circuit", f"{len(circuit):,}", f"of {circuit.model.layout.total:,}"),
            cards.Card(
                "In the final 10 % of layers",
                cards.percent(circuit.concentration(0.10)),
                f"shuffled labels: {cards.percent(shuffled.mean)}, "
                f"{100 * shuffled.low:.0f}–{cards.percent(shuffled.high)}",
                "The same selection with the labels of the prompts shuffled: what scale alone concentrates.",
            ),
            cards.Card("Universal neurons left out", f"{len(left_out):,}", "they fire on 80 % of all prompts"),
            cards.Card("Time", f"{finding.seconds:.1f} s", f"{len(finding.activations.values)} prompts"),
        ]
    )


def _map(finding: session.Finding, circuit: Circuit) -> None:
    statistics = NeuronStatistics.of(finding.activations)
    figure = neuron_heatmap(
        statistics,
        circuit=circuit,
        universal=universal_neurons(finding.activations),
        picked=session.selected_neuron(),
        dark=style.is_dark(),
    )
    charts.show(
        figure,
        HEATMAP,
        "Each row is a layer, each column a slice of its neurons; orange fires more on prompts that are refused, blue "
        "less. Dots are the circuit, rings fire on nearly every prompt and are left out.",
        data=circuit.table,
        file_name="gate-heatmap",
    )


draw()

"""The circuit as a table that can be sorted and searched. A click on a row opens a neuron's card."""

import streamlit as st

from cna_core.circuits.circuit import Circuit, Score
from cna_core.circuits.evidence import Evidence
from pages.inspecting import picking

COLUMNS = {
    "rank": st.column_config.NumberColumn("rank", width=52, format="%d", help="Rank by |score|, over all layers."),
    "layer": st.column_config.NumberColumn("layer", width=54, format="%d"),
    "neuron": st.column_config.NumberColumn("neuron", width=66, format="%d"),
    "delta": st.column_config.NumberColumn(
        "δ", width=68, format="%.3f", help="Mean on positive prompts minus mean on negative ones."
    ),
    "positive_mean": st.column_config.NumberColumn("mean +", width=72, format="%.2f", help="Mean on positive prompts."),
    "negative_mean": st.column_config.NumberColumn("mean −", width=72, format="%.2f", help="Mean on negative prompts."),
    "effect_size": st.column_config.NumberColumn(
        "effect size", width=84, format="%.2f", help="δ over the pooled standard deviation (Cohen's d)."
    ),
    "effect": st.column_config.NumberColumn(
        "effect",
        width=70,
        format="%.3f",
        help="The estimated change of the refusal log-odds when the neuron is ablated; negative: it pushes towards "
        "refusal.",
    ),
    "auc": st.column_config.NumberColumn(
        "AUC", width=58, format="%.2f", help="This neuron alone as a classifier: 0.5 is chance, 1 or 0 is perfect."
    ),
    "selection_frequency": st.column_config.ProgressColumn(
        "selected",
        format="percent",
        min_value=0,
        max_value=1,
        help="Share of random halves of the prompts that select it.",
    ),
}


_LAST = ("auc", "selection_frequency")
BY_SCORE: dict[Score, tuple[str, ...]] = {
    "delta": ("rank", "layer", "neuron", "delta", *_LAST),
    "effect-size": ("rank", "layer", "neuron", "effect_size", "delta", *_LAST),
    "attribution-patching": ("rank", "layer", "neuron", "effect", "delta", *_LAST),
}
"""Columns of a narrow table, by what the circuit was ranked by."""


def draw(
    circuit: Circuit, evidence: Evidence | None, key: str, height: int = 360, columns: tuple[str, ...] | None = None
) -> None:
    """Draw the table; a click on a row opens that neuron's card.

    Args:
        columns: the columns to show, in this order; None shows all.
    """
    auc = evidence.auc if evidence is not None else None
    frequency = evidence.selection_frequency if evidence is not None else None
    st.dataframe(
        circuit.table(auc, frequency),
        key=key,
        column_config=COLUMNS,
        column_order=columns,
        hide_index=True,
        height=height,
        on_select=lambda: picking.from_table(key, circuit),
        selection_mode="single-row",
    )

"""The card of one neuron: its activation on every prompt, the tokens it promotes, and its activation on any text."""

import html
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray
from streamlit.delta_generator import DeltaGenerator

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import Evidence
from cna_core.circuits.facts import NeuronFacts, neuron_facts
from cna_core.circuits.library import circuits_containing
from cna_core.circuits.neurons import TokenPushes, activations_on_text, output_tokens
from cna_core.errors import CnaError
from cna_core.figures.neurons import prompt_strip, token_bars, token_strip
from cna_core.figures.percents import percent
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress
from cna_core.progress_words import progress_in_words
from pages.common import charts, keys, session, style
from pages.common.plain import plain, tell
from pages.common.recent import Recent

KEPT = 256
"""How many neurons' tokens, and texts, a session caches."""
EXAMPLE_TEXT = "I'm sorry, but I can't assist with that. Here is how to bake bread:"


def draw(activations: Activations, circuit: Circuit, evidence: Evidence | None, place: tuple[int, int]) -> None:
    """The numbers and the strip plot, from recorded activations alone."""
    facts = neuron_facts(activations, circuit, *place, evidence)
    st.subheader(f"Layer {facts.layer}, neuron {facts.neuron}", anchor=False)
    st.caption(_standing(facts, circuit))
    st.html(_numbers(facts))
    charts.show(
        charts.kept(
            ("strip", activations.model.model_dump_json(), activations.sha256, len(activations.prompts), place),
            lambda: prompt_strip(facts.values, activations.is_positive, activations.prompts, dark=style.is_dark()),
        ),
        "neuron-strip",
        "Each dot is a prompt; hover to read it. The bars are the means of the two sets. The further apart they are, "
        "relative to the spread of the dots, the better this neuron separates the sets.",
        data=pd.DataFrame(
            {"prompt": activations.prompts, "positive": activations.is_positive, "activation": facts.values}
        ),
        file_name=f"neuron-{facts.layer}-{facts.neuron}",
    )


def draw_words(activations: Activations, place: tuple[int, int]) -> None:
    """Draw the tokens that it promotes and its activation on a text; both run the model."""
    said = st.empty()
    try:
        pushes = _pushes(activations.model.model_dump_json(), *place, said)
    except CnaError as error:
        tell(error, said, icon=":material/info:")
    else:
        charts.show(
            token_bars(pushes.up, pushes.down, dark=style.is_dark()),
            "neuron-tokens",
            "The neuron's output direction, multiplied by the final norm's scale and the unembedding: how much each "
            "token's logit rises or falls for one unit of activation. Effects through later layers are not included.",
            data=pd.DataFrame([*pushes.up, *pushes.down], columns=["token", "logits_per_unit"]),
        )
    text = st.text_area(
        "Show its activation on your own text",
        EXAMPLE_TEXT,
        key="neuron_text",
        persist_state="session",
        max_chars=4000,
        height=90,
    )
    said = st.empty()
    try:
        tokens, values = _on_text(activations.model.model_dump_json(), text, *place, said)
    except CnaError as error:
        tell(error, said, icon=":material/info:")
    else:
        st.html(token_strip(tokens, values, dark=style.is_dark()))
        charts.explain(
            [
                "Orange: positive activation. Blue: negative. Full colour is the strongest in this text. Hover over a "
                "token for its value. The text is read without a chat template."
            ],
            transfer="",
        )


def draw_keepers(activations: Activations, place: tuple[int, int]) -> None:
    """Draw which saved circuits contain the neuron."""
    found = circuits_containing(activations.model, *place)
    words = ", ".join(f"{name} (rank {rank})" for name, rank in found)
    st.caption(f"In saved circuits: {plain(words)}." if found else "Not in any saved circuit of this model.")


def _standing(facts: NeuronFacts, circuit: Circuit) -> str:
    if facts.rank is not None:
        chosen = facts.selection_frequency
        often = "" if chosen is None else f"; {percent(chosen)} of random halves of the prompts select it"
        return f"Rank {facts.rank} of {len(circuit):,} in the circuit{often}."
    if facts.is_universal:
        return "A universal neuron: active whatever the prompt asks, so it is left out of the circuit."
    return f"Not in the circuit. Rank {facts.strength_rank:,} of all neurons by |δ|."


def _numbers(facts: NeuronFacts) -> str:
    pairs = [
        ("δ", f"{facts.delta:+.3g}"),
        ("effect size", f"{facts.effect_size:+.2f}"),
        ("AUC", f"{facts.auc:.2f}"),
        ("mean +", f"{facts.positive_mean:.3g}"),
        ("mean −", f"{facts.negative_mean:.3g}"),
    ]
    cells = "".join(
        f'<div><div style="font-size:.78rem;opacity:.75">{html.escape(name)}</div>'
        f'<div style="font-weight:600;font-size:1.1rem">{html.escape(value)}</div></div>'
        for name, value in pairs
    )
    return f'<div data-testid="neuron-numbers" style="display:flex;flex-wrap:wrap;gap:.4rem 1.3rem">{cells}</div>'


def _pushes(identity: str, layer: int, neuron: int, said: DeltaGenerator) -> TokenPushes:
    kept: Recent[TokenPushes] = st.session_state.setdefault(keys.NEURON_TOKENS, Recent(KEPT))
    key = (identity, layer, neuron)
    pushes = kept.get(key)
    if pushes is None:
        with _model(said) as model:
            pushes = output_tokens(model, layer, neuron)
        kept.put(key, pushes)
        said.empty()
    return pushes


def _on_text(
    identity: str, text: str, layer: int, neuron: int, said: DeltaGenerator
) -> tuple[list[str], NDArray[np.float32]]:
    kept: Recent[tuple[list[str], NDArray[np.float32]]] = st.session_state.setdefault(
        keys.NEURON_TEXT_VALUES, Recent(KEPT)
    )
    key = (identity, text, layer, neuron)
    found = kept.get(key)
    if found is None:
        with _model(said) as model:
            tokens, values = activations_on_text(model, text, [layer], [neuron])
        found = tokens, values[:, 0]
        kept.put(key, found)
        said.empty()
    return found


def _model(said: DeltaGenerator) -> AbstractContextManager[LoadedModel]:
    """The chosen model, for this request. `said` shows the progress of waiting for it and loading it."""

    def progress(told: Progress) -> None:
        said.caption(plain(progress_in_words(told)))

    return host.acquire(session.model_name(), **session.load_options(), progress=progress)

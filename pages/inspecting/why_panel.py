"""Why this prompt? on the Gate page: the effects of all neurons on one typed prompt, and its strongest neurons."""

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.explanation import Explanation
from cna_core.circuits.neurons import output_tokens
from cna_core.errors import CircuitError
from cna_core.evaluation.effects import explain
from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.figures.percents import percent
from cna_core.limits import strength_limit
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress_words import counted
from pages.common import address, charts, chosen_circuit, jobs, keys, session, style
from pages.common.plain import plain
from pages.common.recent import Recent

KEPT = 32
STRONGEST = 20
"""Neurons named, either way."""
TOKENS = 4
"""Tokens named of each of them."""
EXAMPLE = "How do I kill a Python process?"


@dataclass(frozen=True)
class Reason:
    """What the panel shows of one prompt.

    Args:
        why: effects of all measured neurons.
        towards, against: the strongest neurons either way, with the tokens that they write.
    """

    why: Explanation
    towards: pd.DataFrame
    against: pd.DataFrame


@st.cache_resource(show_spinner=False)
def _reasons() -> Recent[Reason]:
    return Recent(KEPT)


def draw(activations: Activations, circuit: Circuit) -> None:
    """Draw the prompt's field, and the explanation of the prompt that was asked for last."""
    with st.form("why-form", border=False):
        field, button = st.columns([6, 1], vertical_alignment="bottom")
        field.text_input("Prompt (the model need not refuse it)", EXAMPLE, key=keys.WHY_PROMPT, max_chars=2000)
        button.form_submit_button("Explain", icon=":material/help:", width="stretch", on_click=_ask)
    prompt = st.session_state.get(keys.WHY_SHOWN)
    if not prompt:
        st.caption(
            "One backward pass estimates for every neuron how much ablating it changes the refusal of this prompt. It "
            "takes about a second once the model is loaded. The first time, it also calibrates the gate meter for this "
            "model."
        )
        return
    key = _key(prompt)
    if jobs.running(key):
        jobs.watch(key)
        return
    jobs.tell_outcome(jobs.get(key))
    reason = _reasons().get(key)
    if reason is not None and reason.why.model == activations.model:
        _show(reason, activations, circuit)


def _ask() -> None:
    prompt = str(st.session_state.get(keys.WHY_PROMPT, "")).strip()
    if not prompt:
        st.toast("The prompt is empty. Type something first.")
        return
    st.session_state[keys.WHY_SHOWN] = prompt
    start(prompt)


def start(prompt: str) -> None:
    """Explain the prompt in the background, unless that was done already."""
    key, name, options, reasons, settings = (
        _key(prompt),
        session.model_name(),
        session.load_options(),
        _reasons(),
        _how(),
    )
    if reasons.get(key) is not None:
        return

    def work(job: jobs.Job) -> None:
        watching: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
        with host.acquire(name, **options, **watching) as model:
            why = explain(model, prompt, settings=settings, **watching)
            sides = (_with_tokens(model, why.strongest(STRONGEST, towards=towards)) for towards in (True, False))
            reasons.put(key, Reason(why, *sides))

    jobs.start(key, "Why this prompt?", work)


def _how() -> EffectSettings:
    return EffectSettings(layers="all" if st.session_state.get(keys.EFFECT_IN_ALL_LAYERS) else "first-two-thirds")


def _key(prompt: str) -> str:
    about = repr((session.model_name(), session.load_options(), prompt, _how().layers))
    return f"why-{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def _with_tokens(model: LoadedModel, strongest: pd.DataFrame) -> pd.DataFrame:
    words = []
    for layer, neuron, activation in strongest[["layer", "neuron", "activation"]].itertuples(index=False):
        tokens = ""
        with contextlib.suppress(CircuitError):  # routed experts have no single matrix to read the tokens from
            pushes = output_tokens(model, int(layer), int(neuron), TOKENS)
            # A neuron that fires below zero writes what its direction pushes down.
            tokens = " · ".join(text.strip() or "␣" for text, _ in (pushes.up if activation >= 0 else pushes.down))
        words.append(tokens)
    return strongest.assign(writes=words)


def _show(reason: Reason, activations: Activations, circuit: Circuit) -> None:
    why = reason.why
    st.markdown(f"“{_shortened(why.prompt)}”: {_in_words(why, circuit)}")
    layers = "" if why.settings.layers == "all" else " The last third of the layers is not measured."
    charts.show(
        neuron_heatmap(
            NeuronStatistics.of(activations, why.effect), circuit=circuit, quantity="effect", dark=style.is_dark()
        ),
        "why-map",
        "Each row is a layer, each column a slice of its neurons. Orange neurons push this prompt towards refusal: "
        f"ablating them is estimated to lower it. Blue neurons push against it. Dots are the circuit.{layers}",
        data=lambda: pd.concat([reason.towards, reason.against]),
        data_name="Strongest neurons (CSV)",
    )
    left, right = st.columns(2, gap="large")
    for column, title, frame, key in (
        (left, "Towards refusal", reason.towards, "why-towards"),
        (right, "Against refusal", reason.against, "why-against"),
    ):
        with column:
            st.markdown(f"**{title}**")
            st.dataframe(_marked(frame, circuit), hide_index=True, key=key, height=300, column_config=_COLUMNS)
    _offer_chat(why)


def _in_words(why: Explanation, circuit: Circuit) -> str:
    refuses = 1 / (1 + np.exp(-why.log_odds))
    sides = "a refusal is more likely than an answer" if why.log_odds > 0 else "an answer is more likely than a refusal"
    share = percent(why.share_of(circuit))
    strongest = why.strongest(STRONGEST)
    there = sum(circuit.position_of(int(row.layer), int(row.neuron)) is not None for row in strongest.itertuples())
    odds = f"{why.log_odds:+.1f}".replace("-", "−")
    return (
        f"**{sides}**. Tokens that open refusals have {percent(float(refuses))} of the first token's probability "
        f"(log-odds {odds}). The circuit of {counted(len(circuit), 'neuron')} has {share} of the effect "
        f"towards refusal, and contains {there} of the {len(strongest)} strongest neurons."
    )


def _shortened(prompt: str) -> str:
    text = " ".join(prompt.split())
    return plain(text if len(text) <= 100 else f"{text[:100]}…")


_COLUMNS = {
    "layer": st.column_config.NumberColumn("layer", width=50, format="%d"),
    "neuron": st.column_config.NumberColumn("neuron", width=62, format="%d"),
    "effect": st.column_config.NumberColumn(
        "effect", width=66, format="%+.3f", help="The estimated change of the refusal log-odds when it is ablated."
    ),
    "activation": st.column_config.NumberColumn("activation", width=76, format="%.2f", help="At the last token."),
    "rank": st.column_config.TextColumn("rank", width=50, help="Its rank in the circuit, if it has one."),
    "writes": st.column_config.TextColumn("writes", help="The tokens that it promotes most with this activation."),
}


def _marked(frame: pd.DataFrame, circuit: Circuit) -> pd.DataFrame:
    places = [circuit.position_of(int(row.layer), int(row.neuron)) for row in frame.itertuples()]
    ranks = ["–" if place is None else f"{place + 1}" for place in places]
    return frame.assign(rank=ranks)[list(_COLUMNS)]


def _offer_chat(why: Explanation) -> None:
    row = st.container(horizontal=True, vertical_alignment="bottom")
    most = int((np.nan_to_num(why.effect) < 0).sum())
    if not most:
        return
    count = row.number_input("Neurons", 1, most, min(STRONGEST, most), key="why-count", width=120)
    if row.button("Ablate only these in Chat", key="why-chat", icon=":material/forum:"):
        chosen_circuit.open_circuit(why.circuit(int(count)))
        st.session_state[keys.STRENGTH] = min(1.0, strength_limit())
        st.session_state[keys.CHAT_MESSAGE] = why.prompt
        address.open_page("chat")
    row.caption("Opens Chat with this prompt, and these neurons as the circuit, at strength 1.")

"""The circuit as small multiples: each neuron's number, its activations on the two sets, and the tokens that it writes.

Sorted by rank, or, after a search, by how much the neurons write the word that was searched for.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.writers import Writers, promoted
from cna_core.errors import CnaError
from cna_core.figures import palette
from cna_core.figures.lanes import visible_text
from cna_core.figures.small_histogram import HEIGHT, WIDTH, small_histogram
from cna_core.models.host import host
from cna_core.progress import Progress
from cna_core.progress_words import counted, progress_in_words
from pages.common import keys, session
from pages.common.plain import plain, tell
from pages.common.recent import Recent
from pages.inspecting import picking, word_search

AT_ONCE = 24
"""Neurons on one page of the gallery."""
PAGES_KEPT = 64
KEY = "neurons-gallery"

_here = Path(__file__)
_gallery = st.components.v2.component(
    "refusal_gate_gallery",
    html='<div class="gallery" data-testid="gallery"></div>',
    css=_here.with_name("gallery.css").read_text(encoding="utf-8"),
    js=_here.with_name("gallery.js").read_text(encoding="utf-8"),
)


def draw(activations: Activations, circuit: Circuit) -> None:
    """The search for a word, and one page of the circuit's neurons. A click opens a neuron's card."""
    found = word_search.ask(circuit)
    order = np.arange(len(circuit)) if found is None else np.argsort(-np.abs(found.score), kind="stable")
    places = _page(order, circuit, found)
    said = st.empty()
    try:
        tokens = _tokens(circuit, places, said.caption)
        said.empty()
    except CnaError as error:
        tell(error, said, icon=":material/info:")
        tokens = [()] * len(places)
    _draw(activations, circuit, places, tokens, found)
    st.caption(
        "Each neuron's activations on positive prompts (orange) and negative ones (teal), from its smallest to its "
        "largest; the dashed line is 0. Below: the tokens that it promotes most. Click one to see its card above."
    )
    if found is not None:
        with st.expander("As a table", type="compact"):
            word_search.draw_table(found, circuit)


def _page(order: np.ndarray, circuit: Circuit, found: Writers | None) -> list[int]:
    """The positions, in rank order, of the neurons on the page that is shown, under the buttons that turn it."""
    pages = max(1, -(-len(order) // AT_ONCE))
    about = (circuit.sha256, None if found is None else found.token)
    key, page = st.session_state.get(keys.GALLERY_PAGE, (about, 0))
    page = min(page, pages - 1) if key == about else 0
    first, last = page * AT_ONCE, min((page + 1) * AT_ONCE, len(order))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for step, icon, words in ((-1, "chevron_left", "Page before"), (1, "chevron_right", "Next page")):
            st.button(
                "",
                icon=f":material/{icon}:",
                key=f"gallery-page{step:+d}",
                help=words,
                disabled=not 0 <= page + step < pages,
                on_click=lambda to=page + step: st.session_state.update({keys.GALLERY_PAGE: (about, to)}),
            )
        by = "by rank" if found is None else f"by how much they write “{visible_text(found.token)}”"
        st.caption(f"{first + 1:,} to {last:,} of {counted(len(order), 'neuron')}, {plain(by)}.", width="stretch")
    return order[first:last].tolist()


def _draw(
    activations: Activations,
    circuit: Circuit,
    places: list[int],
    tokens: Sequence[tuple[str, ...]],
    found: Writers | None,
) -> None:
    picked = picking.picked_or_first(activations, circuit)
    values = activations.values[:, circuit.flat[places].tolist()].float().numpy()
    neurons = []
    for column, (place, writes) in enumerate(zip(places, tokens, strict=True)):
        layer, neuron = int(circuit.layers[place]), int(circuit.neurons[place])
        number = _number(circuit, place, found)
        neurons.append(
            {
                **small_histogram(values[:, column], activations.is_positive)._asdict(),
                "name": f"L{layer} · {neuron}",
                "rank": f"{place + 1}",
                "number": number,
                "tokens": [visible_text(token) for token in writes],
                "picked": (layer, neuron) == picked,
                "label": f"Layer {layer}, neuron {neuron}, rank {place + 1}, {number}",
            }
        )

    def told() -> None:
        at = st.session_state[KEY].get("pick")
        if at is not None and 0 <= int(at) < len(places):
            picking.from_rank(circuit, places[int(at)])
            st.session_state[keys.PICKED_BELOW] = True

    data: dict[str, Any] = {
        "neurons": neurons,
        "width": WIDTH,
        "height": HEIGHT,
        "colours": {"positive": palette.POSITIVE, "negative": palette.NEGATIVE},
    }
    _gallery(key=KEY, data=data, on_pick_change=told)


def _number(circuit: Circuit, place: int, found: Writers | None) -> str:
    """The neuron's number: what it was ranked by, or how much it writes the word."""
    if found is not None:
        return f"“{visible_text(found.token)}” {found.score[place]:+.1f} SD".replace("-", "−")
    if circuit.settings.score == "attribution-patching" and circuit.effect is not None:
        return f"effect {circuit.effect[place]:+.3f}".replace("-", "−")
    if circuit.settings.score == "effect-size":
        return f"effect size {circuit.effect_size[place]:+.2f}".replace("-", "−")
    return f"δ {circuit.delta[place]:+.2f}".replace("-", "−")


def _tokens(circuit: Circuit, places: list[int], say: Callable[[str], object]) -> list[tuple[str, ...]]:
    kept: Recent[list[tuple[str, ...]]] = st.session_state.setdefault(keys.GALLERY_TOKENS, Recent(PAGES_KEPT))
    key = (circuit.sha256, tuple(places))
    tokens = kept.get(key)
    if tokens is None:

        def progress(told: Progress) -> None:
            say(plain(progress_in_words(told)))

        with host.acquire(session.model_name(), **session.load_options(), progress=progress) as model:
            tokens = promoted(model, circuit, places)
        kept.put(key, tokens)
    return tokens

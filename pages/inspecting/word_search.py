"""Search the circuit by a word: which of its neurons write it."""

from collections.abc import Callable

import streamlit as st

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.writers import Writers, word_tokens, writers_of
from cna_core.errors import CnaError
from cna_core.figures.lanes import visible_text
from cna_core.models.host import host
from cna_core.progress import Progress
from cna_core.progress_words import progress_in_words
from pages.common import keys, session
from pages.common.plain import plain, tell
from pages.common.recent import Recent
from pages.inspecting import picking

KEPT = 32
TABLE = "neurons-writers"


def ask(circuit: Circuit) -> Writers | None:
    """A field for a word; returns how much each neuron writes it, or None while there is no word."""
    word = st.text_input(
        "Which neurons write a word?",
        key="neurons-word",
        placeholder="sorry",
        persist_state="session",
        max_chars=60,
        width=320,
        help="Sorts the circuit by how much each neuron promotes the word's first token, or suppresses it, directly.",
    )
    if not word.strip():
        return None
    said = st.empty()
    try:
        found = _found(circuit, word, said.caption)
    except CnaError as error:
        tell(error, said, icon=":material/info:")
        return None
    said.empty()
    return found


def draw_table(found: Writers, circuit: Circuit) -> None:
    """The neurons that raise or lower the word most, with the numbers."""
    st.dataframe(
        found.table(circuit),
        hide_index=True,
        key=TABLE,
        on_select=lambda: _pick(found, circuit),
        selection_mode="single-row",
    )
    token = plain(visible_text(found.token))
    st.caption(
        f"What one unit of a neuron's activation adds directly to the logit of “{token}”, the word's first token; the "
        "same in standard deviations (SD) over the vocabulary; and the token's place among all tokens that the neuron "
        "promotes. Click a row to see the neuron above."
    )


def _pick(found: Writers, circuit: Circuit) -> None:
    state = st.session_state.get(TABLE) or {}
    rows = (state.get("selection") or {}).get("rows") or []
    if rows:
        picking.from_rank(circuit, int(found.table(circuit)["rank"].iloc[rows[0]]) - 1)
        st.session_state[keys.PICKED_BELOW] = True


def _found(circuit: Circuit, word: str, say: Callable[[str], object]) -> Writers:
    kept: Recent[Writers] = st.session_state.setdefault(keys.WRITERS, Recent(KEPT))
    key = (circuit.sha256, word.strip())
    found = kept.get(key)
    if found is None:

        def progress(told: Progress) -> None:
            say(plain(progress_in_words(told)))

        say("Reading what the circuit's neurons write …")
        with host.acquire(session.model_name(), **session.load_options(), progress=progress) as model:
            found = writers_of(model, circuit, word_tokens(model, word)[0])
        kept.put(key, found)
    return found

"""Which neurons of the circuit write alike: the cosines of their output directions, in groups."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.groups import ALIKE, Groups, group_alike
from cna_core.circuits.writers import similarity
from cna_core.errors import CnaError
from cna_core.figures.similarity import similarity_map
from cna_core.models.host import host
from cna_core.progress import Progress
from cna_core.progress_words import progress_in_words
from pages.common import charts, keys, session, style
from pages.common.plain import plain, tell
from pages.common.recent import Recent

MOST = 300
"""The most neurons that are compared; beyond, the map has more cells than the screen can show."""
KEPT = 4


def draw(circuit: Circuit) -> None:
    """The map, and in words how many neurons of the circuit it shows."""
    said = st.empty()
    shown = circuit.part(slice(0, MOST))
    try:
        cosines, groups = _compared(shown, said.caption)
    except CnaError as error:
        tell(error, said, icon=":material/info:")
        return
    said.empty()
    words = (
        "The cosine of what two neurons write to the residual stream, seen through the final norm's scale: 1 if they "
        f"write the same, −1 if the opposite, about 0 for unrelated ones. Outlined: groups with mean cosines of at "
        f"least {ALIKE:g} (average linkage). Hover over a cell for its two neurons."
    )
    only = f"The first {MOST:,} of {len(circuit):,} neurons, by rank." if len(circuit) > MOST else ""
    charts.show(
        similarity_map(cosines, shown.layers, shown.neurons, groups, dark=style.is_dark()),
        "neurons-alike",
        words,
        data=lambda: _table(shown, cosines, groups),
        always=only,
    )


def _compared(circuit: Circuit, say: Callable[[str], object]) -> tuple[NDArray[np.float32], Groups]:
    kept: Recent[tuple[NDArray[np.float32], Groups]] = st.session_state.setdefault(keys.ALIKE, Recent(KEPT))
    found = kept.get(circuit.sha256)
    if found is None:

        def progress(told: Progress) -> None:
            say(plain(progress_in_words(told)))

        with host.acquire(session.model_name(), **session.load_options(), progress=progress) as model:
            cosines = similarity(model, circuit)
        found = cosines, group_alike(cosines)
        kept.put(circuit.sha256, found)
    return found


def _table(circuit: Circuit, cosines: NDArray[np.float32], groups: Groups) -> pd.DataFrame:
    """Each neuron with its group and the neuron that writes most like it."""
    others = cosines.copy()
    np.fill_diagonal(others, -2)
    nearest = others.argmax(1)
    return pd.DataFrame(
        {
            "rank": np.arange(len(circuit)) + 1,
            "layer": circuit.layers,
            "neuron": circuit.neurons,
            "group": groups.group,
            "most_alike_rank": nearest + 1,
            "cosine": others[np.arange(len(circuit)), nearest],
        }
    )

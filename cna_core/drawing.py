"""The usual chart of an object, for notebooks: `circuit.plot()`, `run.plot()`, `cna.plot(activations)`.

Objects lie below the charts and must not know them. This is the one door upwards: it asks the charts' room by name, so
that neither an import of `cna_core` nor the library without its charts needs Plotly.
"""

from importlib import import_module
from typing import Any

from cna_core.errors import CnaError


def plot(thing: Any, **options: Any) -> Any:
    """The usual chart of a circuit, of activations or of a run; `cna_core/figures/overview.py` has them.

    Args:
        thing: what to draw.
        options: `dark=True` for a dark page; for a circuit `activations`, to see it on the map of all neurons; for a
            run `fraction`, the circuit size.

    Returns:
        A Plotly figure.

    Raises:
        CnaError: Plotly is not installed, or there is no chart of such a thing.
    """
    try:
        overview = import_module("cna_core.figures.overview")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "plotly":
            raise
        raise CnaError("Charts need Plotly: run pip install 'refusal-gate-explorer[app]'.") from error
    return overview.chart_of(thing, **options)

"""The default chart of an object, for notebooks: `circuit.plot()`, `run.plot()`, `cna.plot(activations)`.

Objects must not import the charts, which are built on them. This module is the one exception: it imports the charts by
name when one is drawn, so importing `cna_core` does not need Plotly.
"""

from importlib import import_module
from typing import Any

from cna_core.errors import CnaError


def plot(thing: Any, **options: Any) -> Any:
    """The default chart of a circuit, of activations or of a run (see `cna_core/figures/overview.py`).

    Args:
        thing: the object to draw.
        options: `dark=True` for a dark page; for a circuit, `activations` to show it on the map of all neurons; for a
            run, `fraction`, the circuit size.

    Returns:
        A Plotly figure.

    Raises:
        CnaError: Plotly is not installed, or there is no chart for this kind of object.
    """
    try:
        overview = import_module("cna_core.figures.overview")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "plotly":
            raise
        raise CnaError("Charts need Plotly: run pip install 'refusal-gate-explorer[app]'.") from error
    return overview.chart_of(thing, **options)

"""The example notebook runs from top to bottom."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import plotly.graph_objects as go
import pytest

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.runs import Run

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "first_look.ipynb"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """docs/make_notebook.py."""
    specification = importlib.util.spec_from_file_location("make_notebook", ROOT / "docs" / "make_notebook.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_notebook_is_kept_without_outputs() -> None:
    code = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.small_model
def test_the_notebook_runs_from_top_to_bottom(maker: ModuleType) -> None:
    values = [value for _, _, _, value in maker.run(NOTEBOOK)]
    circuit = next(value for value in values if isinstance(value, Circuit))
    run = next(value for value in values if isinstance(value, Run))
    assert len(circuit) == 184
    assert run.finished
    assert sum(isinstance(value, go.Figure) for value in values) == 2

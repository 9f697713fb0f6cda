"""Comparisons as text: what is shared is counted right, and unlike things are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.errors import CnaError
from cna_core.evaluation.compare import comparison
from cna_core.models.layout import ModelIdentity


def circuit_file(path: Path, neurons: list[int], delta: list[float], width: int = 10) -> Path:
    model = ModelIdentity(name="tiny", revision="local", layers=4, neurons_per_layer=width, dtype="float32")
    figures = np.array(delta, dtype=np.float32)
    settings, prompts = CircuitSettings(top_k=len(neurons)), CircuitPrompts(positive=2, negative=2, sha256="0")
    layers = np.full(len(neurons), 3)
    return Circuit(model, settings, prompts, layers, np.array(neurons), figures, figures, figures, figures).save(path)


def run_file(path: Path, rate: float) -> Path:
    content = {
        "format": "cna-run/2",
        "model": {"name": "tiny", "revision": "local", "layers": 4, "neurons_per_layer": 10, "dtype": "float32"},
        "circuit_sha256": "0",
        "settings": {"strengths": [0.0, 1.0], "fractions": [0.004], "prompts": {}},
        "versions": {},
        "points": [{"strength": 1.0, "fraction": 0.004, "method": "scale", "refusal_rate": rate}],
        "answers": [],
    }
    path.write_text(json.dumps(content))
    return path


def test_two_circuits_share_the_neurons_that_both_have(tmp_path: Path) -> None:
    first = circuit_file(tmp_path / "a.json", [1, 2, 3], [1.0, 2.0, 3.0])
    second = circuit_file(tmp_path / "b.json", [2, 3, 4, 5], [2.0, -3.0, 1.0, 1.0])
    assert "shared: 2 neurons, Jaccard 0.40; δ of the same sign in 1" in comparison(first, second)


def test_circuits_of_differently_shaped_models_are_not_matched(tmp_path: Path) -> None:
    first = circuit_file(tmp_path / "a.json", [1], [1.0])
    second = circuit_file(tmp_path / "b.json", [1], [1.0], width=12)
    assert "cannot be matched" in comparison(first, second)


def test_two_runs_are_compared_at_the_settings_that_both_have(tmp_path: Path) -> None:
    said = comparison(run_file(tmp_path / "a.json", 0.9), run_file(tmp_path / "b.json", 0.34))
    assert "90 % → 34 %" in said
    assert "0.4 %" in said


def test_a_circuit_and_a_run_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(CnaError, match="same kind"):
        comparison(circuit_file(tmp_path / "a.json", [1], [1.0]), run_file(tmp_path / "b.json", 0.5))

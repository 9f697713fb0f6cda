"""A circuit applied to another model of the same layers: only when asked, and said wherever it is shown."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cna_core.circuits.circuit import Circuit
from cna_core.cli import command_line
from cna_core.errors import CircuitError
from cna_core.evaluation.dials import circuits_by_fraction
from cna_core.evaluation.runs import Run
from cna_core.evaluation.sweep import evaluate
from cna_core.models.loaded import LoadedModel
from tests.circuits.samples import identity, random_activations
from tests.evaluation.sweeping import HARMFUL, small_circuit, small_model
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return replace(tiny_llama(seed=2), name="tiny-base", revision="other")


def swept(base: LoadedModel, circuit: Circuit) -> Run:
    chosen = {"methods": ("scale",), "controls": False, "benign": None, "borderline": None, "max_new_tokens": 2}
    return evaluate(base, circuit, HARMFUL, (0.0, 1.0), **chosen)  # type: ignore[arg-type]


def test_a_circuit_of_another_model_is_applied_only_when_asked_and_the_run_says_so(
    base: LoadedModel, empty_cache: Path
) -> None:
    circuit = small_circuit(small_model())
    with pytest.raises(CircuitError, match="belongs to tiny"):
        swept(base, circuit)
    run = swept(base, circuit.transferred_to(base.identity))
    assert run.transferred_from == "tiny"
    assert run.notes[0] == "Transfer: the circuit was found on tiny and applied to tiny-base."
    assert "neurons of tiny" in run.layers_and_size
    assert Run.from_json(run.to_json()).transfer_note == "Transfer: the circuit was found on tiny."


def test_a_transferred_circuit_is_the_same_neurons_and_its_file_says_where_they_are_from(base: LoadedModel) -> None:
    circuit = small_circuit(small_model())
    moved = circuit.transferred_to(base.identity)
    assert moved.flat.tolist() == circuit.flat.tolist()
    assert Circuit.from_json(moved.to_json()).settings.transferred_from == "tiny"
    assert "transferred_from" not in circuit.to_json()
    assert circuit.transferred_to(circuit.model) is circuit
    again = moved.transferred_to(identity(24).model_copy(update={"name": "third"}))
    assert again.settings.transferred_from == "tiny"


def test_other_layers_and_sizes_that_the_source_alone_knows_are_refused(base: LoadedModel) -> None:
    circuit = small_circuit(small_model())
    with pytest.raises(CircuitError, match="the layers differ"):
        circuit.transferred_to(identity(5, layers=2))
    with pytest.raises(CircuitError, match="50 % is 48 neurons"):
        circuits_by_fraction(circuit.transferred_to(base.identity), (0.5,), random_activations(model=base.identity))


@pytest.mark.parametrize(("command", "module"), [("serve", "serving"), ("verify", "verifying")])
def test_a_command_transfers_a_circuit_only_when_asked(
    base: LoadedModel, command: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(small_circuit(small_model()).save(tmp_path / "circuit.json"))
    words = {
        "serve": ["serve", base.name, "--circuit", file, "--port", "0"],
        "verify": ["verify", file, "--model", base.name, "--checks", "stability"],
    }[command]
    used: list[Circuit] = []

    def fitted(_model: LoadedModel, _method: str, circuit: Circuit, **_settings: object) -> None:
        circuit.check_model(base.identity)
        used.append(circuit)
        raise CircuitError("seen")

    def checked(_model: LoadedModel, circuit: Circuit, **_settings: object) -> None:
        circuit.check_model(base.identity)
        used.append(circuit)
        raise CircuitError("seen")

    monkeypatch.setattr(f"cna_core.cli.{module}.load", lambda *_, **__: base)
    monkeypatch.setattr("cna_core.evaluation.fitting.fit", fitted)
    monkeypatch.setattr("cna_core.evaluation.verify.verify", checked)
    refused = CliRunner().invoke(command_line, words)
    assert isinstance(refused.exception, CircuitError) and "belongs to tiny" in str(refused.exception)
    CliRunner().invoke(command_line, [*words, "--transfer"])
    assert [circuit.settings.transferred_from for circuit in used] == ["tiny"]


def test_chance_overlap_worked_by_hand() -> None:
    circuit = small_circuit(small_model())
    counts = circuit.layer_counts
    assert circuit.shared_by_chance(circuit) == pytest.approx(sum(count * count / 24 for count in counts))

"""The library of saved circuits."""

import os
from pathlib import Path

import pytest

from cna_core.circuits.library import circuits_containing, delete_circuit, load_circuit, save_circuit, saved_circuits
from cna_core.errors import CircuitError
from tests.circuits.samples import circuit_of, identity

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_a_circuit_is_saved_listed_loaded_and_deleted() -> None:
    circuit = circuit_of([(1, 2), (0, 0)])
    save_circuit(circuit, "my gate, 0.1 %")
    assert [entry.name for entry in saved_circuits()] == ["my gate, 0.1 %"]
    assert load_circuit("my gate, 0.1 %").flat.tolist() == circuit.flat.tolist()
    delete_circuit("my gate, 0.1 %")
    assert saved_circuits() == []
    with pytest.raises(CircuitError, match="no saved circuit"):
        load_circuit("my gate, 0.1 %")


def test_the_newest_circuit_comes_first() -> None:
    for age, name in enumerate(["old", "new"]):
        os.utime(save_circuit(circuit_of([(0, 0)]), name), (age, age))
    assert [entry.name for entry in saved_circuits()] == ["new", "old"]


def test_a_name_is_not_overwritten_unasked() -> None:
    save_circuit(circuit_of([(0, 0)]), "gate")
    with pytest.raises(CircuitError, match="already a circuit"):
        save_circuit(circuit_of([(1, 1)]), "gate")
    save_circuit(circuit_of([(1, 1)]), "gate", replace=True)
    assert load_circuit("gate").layers.tolist() == [1]


@pytest.mark.parametrize("name", ["", "  ", "../outside", "a/b", ".hidden", "x" * 81, "a\nb", "a\\b", "nul\0"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(CircuitError, match="name must have 1 to 80"):
        save_circuit(circuit_of([(0, 0)]), name)


def test_a_damaged_file_is_listed_with_its_problem(empty_cache: Path) -> None:
    path = save_circuit(circuit_of([(0, 0)]), "gate")
    path.write_text("{")
    (entry,) = saved_circuits()
    assert entry.circuit is None and "damaged" in entry.problem
    assert saved_circuits(identity()) == []


def test_only_circuits_of_the_model_say_that_they_contain_a_neuron() -> None:
    save_circuit(circuit_of([(3, 3), (0, 1)]), "mine")
    save_circuit(circuit_of([(0, 2)]), "without it")
    save_circuit(circuit_of([(0, 1)], identity(9)), "of another model")
    assert circuits_containing(identity(), 0, 1) == [("mine", 2)]

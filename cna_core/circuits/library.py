"""The circuits that users saved by name in the cache folder: save, list, load, delete.

Each is one cna-circuit/1 file, named after the circuit.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.paths import cache_folder

LONGEST_NAME = 80
_ALLOWED = re.compile(r"[\w .,+()%=@-]+")


@dataclass(frozen=True)
class SavedCircuit:
    """An entry of the library.

    Args:
        name: its name.
        path: its file.
        saved: when it was written, in UTC.
        circuit: the circuit; None if the file cannot be read.
        problem: why it cannot be read, in one sentence; otherwise empty.
    """

    name: str
    path: Path
    saved: datetime
    circuit: Circuit | None
    problem: str = ""


def save_circuit(circuit: Circuit, name: str, replace: bool = False) -> Path:
    """Save the circuit under a name.

    Raises:
        CircuitError: the name is empty, too long or has characters that are not allowed, it is taken and `replace` is
            False, or the disk is full.
    """
    path = _path_of(name)
    if path.exists() and not replace:
        raise CircuitError(f"There is already a circuit named {path.stem}; choose another name or replace it.")
    return circuit.save(path)


def load_circuit(name: str) -> Circuit:
    """The circuit saved under this name.

    Raises:
        CircuitError: there is none, or its file is damaged.
    """
    path = _path_of(name)
    if not path.exists():
        raise CircuitError(f"There is no saved circuit named {path.stem}; it may have been deleted.")
    return Circuit.load(path)


def delete_circuit(name: str) -> None:
    """Remove the circuit saved under this name, if there is one."""
    _path_of(name).unlink(missing_ok=True)


def saved_circuits(model: ModelIdentity | None = None) -> list[SavedCircuit]:
    """All saved circuits, newest first; damaged files are listed with their problem.

    Args:
        model: list only circuits that fit this model, and none that cannot be read.
    """
    entries = []
    for path in cache_folder("circuits", create=False).glob("*.json"):
        try:
            saved = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except OSError:  # deleted meanwhile by another session, or a link that leads nowhere
            continue
        entries.append(_entry(path, saved))
    if model is not None:
        entries = [entry for entry in entries if entry.circuit is not None and _fits(entry.circuit, model)]
    return sorted(entries, key=lambda entry: (entry.saved, entry.name), reverse=True)


def circuits_containing(model: ModelIdentity, layer: int, neuron: int) -> list[tuple[str, int]]:
    """Names of the saved circuits of this model that contain the neuron, each with its rank there, from 1."""
    found = []
    for entry in saved_circuits(model):
        position = entry.circuit.position_of(layer, neuron) if entry.circuit else None
        if position is not None:
            found.append((entry.name, position + 1))
    return found


def _path_of(name: str) -> Path:
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or name.startswith(".") or not _ALLOWED.fullmatch(name):
        raise CircuitError(
            f"A circuit's name must have 1 to {LONGEST_NAME} letters, digits, spaces or . , + ( ) % = @ - _ "
            "and must not begin with a dot."
        )
    return cache_folder("circuits") / f"{name}.json"


def _entry(path: Path, saved: datetime) -> SavedCircuit:
    try:
        return SavedCircuit(path.stem, path, saved, Circuit.load(path))
    except CircuitError as error:
        return SavedCircuit(path.stem, path, saved, None, str(error))


def _fits(circuit: Circuit, model: ModelIdentity) -> bool:
    try:
        circuit.check_model(model)
    except CircuitError:
        return False
    return True

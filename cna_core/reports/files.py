"""The report of a circuit file or a run file, whichever it is."""

from pathlib import Path

from cna_core.circuits.capture import kept_activations_of
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.evidence import examine
from cna_core.errors import CnaError
from cna_core.evaluation.how_few import cached_how_few
from cna_core.evaluation.runs import Run
from cna_core.outside import read_json
from cna_core.paths import path_named
from cna_core.reports.circuit_report import circuit_report
from cna_core.reports.page import Report
from cna_core.reports.run_report import run_report


def report_of_file(path: str | Path, *, with_answers: bool = False) -> Report:
    """The report of a file that attribute or evaluate wrote. No model is loaded.

    A circuit's report has the map and the comparison with chance if its activations are in the cache folder.

    Args:
        with_answers: of a run: also the answers that changed, folded.

    Raises:
        CnaError: it is neither, or cannot be read.
    """
    path = path_named(path)
    try:
        content = read_json(path.read_bytes())
    except OSError as error:
        raise CnaError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise CnaError(f"{path.name} is not JSON; choose a file that attribute or evaluate wrote.") from error
    if isinstance(content, dict) and str(content.get("format", "")).startswith("cna-run/"):
        return run_report(Run.load(path), with_answers=with_answers)
    circuit = Circuit.load(path)
    activations = kept_activations_of(circuit)
    evidence = None if activations is None else examine(activations, circuit)
    how_few = cached_how_few(circuit.model)
    return circuit_report(circuit, activations=activations, evidence=evidence, how_few=how_few)

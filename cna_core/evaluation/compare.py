"""Compares two circuits or two runs side by side, as text.

Reads files and returns text; this module knows nothing about loaded models or charts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError, CnaError
from cna_core.evaluation.measures.numbers import percent
from cna_core.evaluation.runs import Run
from cna_core.evaluation.tables import beside_formats, runs_beside
from cna_core.outside import read_json

Rows = Sequence[Sequence[str]]


def comparison(first: str | Path, second: str | Path) -> str:
    """A text table that compares two circuit files or two run files.

    Raises:
        CircuitError, RunError: a file cannot be read.
        CnaError: one is a circuit and the other a run.
    """
    paths = Path(first), Path(second)
    kinds = {_is_run(path) for path in paths}
    if len(kinds) == 2:
        raise CnaError("One file is a circuit and the other a run; choose two of the same kind.")
    if kinds == {True}:
        return compare_runs(*(Run.load(path) for path in paths))
    return compare_circuits(*(Circuit.load(path) for path in paths))


def compare_circuits(first: Circuit, second: Circuit) -> str:
    """Which neurons two circuits share, and how each circuit is distributed over the layers."""
    rows = [
        ["", "first", "second"],
        _row("model", first, second, lambda circuit: circuit.model.name),
        _row("neurons", first, second, lambda circuit: f"{len(circuit):,}"),
        _row("in the final 10 % of layers", first, second, lambda circuit: percent(circuit.concentration(0.10))),
        _row("in the final 3 layers", first, second, lambda circuit: percent(circuit.concentration(3))),
        _row("in the final quarter", first, second, lambda circuit: percent(circuit.concentration(0.25))),
    ]
    if first.model.layout != second.model.layout:
        return _table(rows) + "\nThe models have different layers, so their neurons cannot be matched."
    shared = np.intersect1d(first.flat, second.flat)
    signs = [
        dict(zip(circuit.flat.tolist(), np.sign(circuit.delta).tolist(), strict=True)) for circuit in (first, second)
    ]
    agreeing = sum(signs[0][neuron] == signs[1][neuron] for neuron in shared.tolist())
    return (
        _table(rows)
        + f"\nshared: {len(shared):,} neurons, Jaccard {first.overlap(second):.2f}; δ of the same sign in {agreeing:,}"
    )


def compare_runs(first: Run, second: Run) -> str:
    """The measurements at the settings that both runs have, one column per measure."""
    heading = f"first: {first.name or first.model.name}\nsecond: {second.name or second.model.name}\n"
    table = runs_beside(first, second)
    if table.empty:
        return heading + "The runs share no setting (method, strength, circuit size)."
    formats = beside_formats(first, second)
    measured = [name.removesuffix(", first") for name in table if name.endswith(", first")]
    rows = [["method", "strength", "size", *measured]]
    for line in table.to_dict("records"):
        size = line["circuit, %"]
        rows.append(
            [
                line["method"],
                f"{line['strength']:g}",
                "" if pd.isna(size) else f"{size:g} %",
                *(
                    " → ".join(
                        _said(line[f"{name}, {which}"], formats[f"{name}, {which}"]) for which in ("first", "second")
                    )
                    for name in measured
                ),
            ]
        )
    return heading + _table(rows)


def _is_run(path: Path) -> bool:
    try:
        content = read_json(path.read_bytes())
    except OSError as error:
        raise CircuitError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError:
        return False  # Circuit.load reports what is wrong with the file
    return isinstance(content, dict) and str(content.get("format", "")).startswith("cna-run/")


def _row(label: str, first: Circuit, second: Circuit, say: Callable[[Circuit], str]) -> list[str]:
    return [label, say(first), say(second)]


def _said(value: float | None, say: Callable[[float], str]) -> str:
    return "–" if value is None or pd.isna(value) else say(value)


def _table(rows: Rows) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

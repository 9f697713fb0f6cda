"""Every control of a circuit on real models, as the README's table: `python benchmarks/controls.py [MODEL …]`.

Default: the two embedded models. Records the built-in prompts once (cached), then uses activations only. Prints a
Markdown table; the last line is JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import examine
from cna_core.circuits.projection import project_prompts
from cna_core.models.catalog import DEFAULT_MODEL, SMALL_MODEL
from cna_core.models.load import load_model
from cna_core.prompts.sets import ContrastSet

FRACTIONS = (0.001, 0.004)
COLUMNS = (
    "model",
    "circuit",
    "neurons",
    "universal left out",
    "in the final 10 % (shuffled labels)",
    "in the final 3 layers (shuffled labels)",
    "expected by chance",
    "two halves share (Jaccard)",
    "PCA AUC",
    "mass in the final 10 %, raw → by scale",
    "seconds",
)


def main(names: list[str]) -> None:
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    rows = []
    for name in names:
        model = load_model(name)
        activations = capture(model, ContrastSet.builtin())
        for fraction in FRACTIONS:
            row = measured(name, activations, fraction)
            rows.append(row)
            print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    print(json.dumps(rows))


def measured(name: str, activations: Any, fraction: float) -> dict[str, Any]:
    started_at = time.perf_counter()
    circuit = attribute(activations, fraction=fraction)
    evidence = examine(activations, circuit)
    assert evidence.null is not None
    seconds = time.perf_counter() - started_at
    final = activations.model.layout.first_layer_of_final(0.10)
    masses = (100 * float(mass[final:].sum()) for mass in (evidence.mass, evidence.mass_normalised))
    halves = evidence.stability.jaccard if evidence.stability else None
    values = (
        f"{name} ({activations.model.dtype})",
        f"{100 * fraction:g} %",
        len(circuit),
        len(evidence.left_out),
        against(circuit.concentration(0.10), evidence.null.concentration(0.10)),
        against(circuit.concentration(3), evidence.null.concentration(3)),
        f"{evidence.null.chance().mean:.1f}",
        f"{100 * halves.mean:.0f} %" if halves else "",
        f"{project_prompts(activations, circuit).auc:.2f}",
        " → ".join(f"{mass:.0f} %" for mass in masses),
        f"{seconds:.1f}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def against(share: float, null: Interval) -> str:
    return f"{100 * share:.0f} % ({100 * null.mean:.0f} %, {100 * null.low:.0f}–{100 * null.high:.0f})"


if __name__ == "__main__":
    main(sys.argv[1:] or [DEFAULT_MODEL, SMALL_MODEL])

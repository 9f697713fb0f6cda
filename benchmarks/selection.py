"""The time to select a circuit again, and to compute every control, from recorded activations (no model).

Uses random activations of two shapes, 24 × 4,864 and 80 × 29,568 neurons, 200 prompts, bfloat16. Targets: 100 ms and
500 ms for each selection, 3 s for all controls of the smaller shape. `--small` skips the larger shape. Prints text; the
last line is JSON with medians of five, in milliseconds.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.controls import auc, mass_per_layer, permutation_null, random_circuit, stability
from cna_core.models.layout import ModelIdentity

PROMPTS = 200


def main() -> None:
    """Measure both shapes and print."""
    results = {}
    for layers, width in [(24, 4864), (80, 29568)][: 1 if "--small" in sys.argv else 2]:
        shape = f"{layers}x{width}"
        print(f"{layers} × {width:,} neurons, {PROMPTS} prompts, {torch.get_num_threads()} threads")
        activations = random_activations(layers, width)
        results[shape] = {name: median_milliseconds(work) for name, work in selections(activations).items()}
        if width < 10_000:
            results[shape]["all controls"] = median_milliseconds(partial(all_controls, activations), repeats=3)
        for name, milliseconds in results[shape].items():
            print(f"  {name:<42} {milliseconds:9.1f} ms")
    print(json.dumps({"benchmark": "selection", "milliseconds": results}))


def random_activations(layers: int, width: int) -> Activations:
    """Normal noise, with a larger scale in later layers, and the per-prompt rankings that a capture stores."""
    torch.manual_seed(0)
    values = torch.empty(PROMPTS, layers * width, dtype=torch.bfloat16)
    for layer in range(layers):
        values[:, layer * width : (layer + 1) * width] = torch.randn(PROMPTS, width) * (1 + layer / layers)
    model = ModelIdentity(name="random", revision="seed 0", layers=layers, neurons_per_layer=width, dtype="bfloat16")
    half = PROMPTS // 2
    names = tuple(f"prompt {number}" for number in range(PROMPTS))
    activations = Activations.of_values(model, names[:half], names[half:], "0" * 64, values)
    attribute(activations)  # what is made once when prompts are captured, and stored or kept
    return activations


def selections(activations: Activations) -> dict[str, Callable[[], object]]:
    """Every change that a user can make without running the model."""
    return {
        "fraction 0.1 % → 0.4 %": lambda: attribute(activations, fraction=0.004),
        "fraction 2 %": lambda: attribute(activations, fraction=0.02),
        "score: effect size": lambda: attribute(activations, score="effect-size"),
        "universal threshold 80 % → 60 %": lambda: attribute(activations, universal_threshold=0.6),
        "universal neurons kept": lambda: attribute(activations, universal_threshold=None),
        "first two layers skipped": lambda: attribute(activations, skip_layers=2),
        "a prompt dropped": lambda: attribute(activations.without([17])),
        "ten prompts dropped": lambda: attribute(activations.without(range(95, 105))),
    }


def all_controls(activations: Activations) -> None:
    """All controls of a circuit on the page: R = 200 shuffles, 50 splits, scale, AUC, random neurons."""
    circuit = attribute(activations)
    permutation_null(activations, circuit)
    stability(activations, circuit)
    mass_per_layer(activations)
    mass_per_layer(activations, normalised=True)
    auc(activations, circuit.flat)
    random_circuit(circuit, activations=activations)


def median_milliseconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median of `repeats` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(times), 1)


if __name__ == "__main__":
    main()

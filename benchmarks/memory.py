"""Memory and time of loading a model, recording the discovery prompts, and a small evaluation.

    python benchmarks/memory.py [MODEL] [--dtype auto] [--prompts 8] [--tokens 64] [--scarce]

Prints each stage's peak of anonymous memory (without pages of files, which the system can free) above the process's
memory before, in GB and as a multiple of the weights. `--scarce` simulates a machine where less than three times the
weights are free: the target is then at most 1.3 times the weights, and no stage of loading may approach twice the
weights. Linux only. The last line is JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.evaluation.sweep import evaluate
from cna_core.models import prepacked
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.prompts.sets import ContrastSet, PromptSet

GB = 1e9
LOOK_SECONDS = 0.005


@dataclass
class Stage:
    """The measurements of one stage.

    Args:
        seconds: its duration.
        peak_bytes: the peak of anonymous memory, above the process's memory before the first stage.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Memory and time of loading, recording and evaluating.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prompts", type=int, default=8, help="evaluation prompts")
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument(
        "--scarce", action="store_true", help="simulate that less than three times the weights are free"
    )
    options = parser.parse_args()
    if options.scarce:
        prepacked.free_memory_bytes = no_free_memory
    before, stages = anonymous_bytes(), dict[str, Stage]()

    with measuring(stages, "loading", before):
        model = load_model(options.model, "cpu", options.dtype)
    weights = sum(weight.nbytes for weight in model.network.parameters())
    contrast = ContrastSet.builtin()
    with tempfile.TemporaryDirectory() as home:
        os.environ["CNA_HOME"] = home  # do not store the run and the vectors of a benchmark in the user's cache
        with measuring(stages, f"recording {len(contrast)} prompts", before):
            activations = capture(model, contrast)
        circuit = attribute(activations)
        prompts = PromptSet("first", PromptSet.builtin("evaluation-harmful").prompts[: options.prompts])
        with measuring(stages, f"evaluating {len(prompts)} prompts, {options.tokens} tokens", before):
            evaluate(model, circuit, prompts, (0.0, 1.0), methods=("scale",), max_new_tokens=options.tokens)

    print(
        f"{options.model} in {model.identity.dtype} on the CPU, {torch.get_num_threads()} threads; weights "
        f"{weights / GB:.2f} GB, packed copies {prepacked.packed_bytes(model.network) / GB:.2f} GB"
    )
    for name, stage in stages.items():
        times = stage.peak_bytes / weights
        print(f"  {name:<36} {stage.seconds:7.1f} s, {stage.peak_bytes / GB:6.2f} GB, {times:5.2f} times the weights")
    report = {
        "benchmark": "memory",
        "model": options.model,
        "dtype": model.identity.dtype,
        "scarce": options.scarce,
        "weights_gb": round(weights / GB, 3),
        "stages": {
            name: {"seconds": round(stage.seconds, 1), "peak_gb": round(stage.peak_bytes / GB, 3)}
            for name, stage in stages.items()
        },
    }
    print(json.dumps(report))


@contextmanager
def measuring(stages: dict[str, Stage], name: str, before: int) -> Iterator[None]:
    """Add the time and the peak of the block to `stages`."""
    stage = stages[name] = Stage()
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            stage.peak_bytes = max(stage.peak_bytes, anonymous_bytes() - before)

    watcher, started = threading.Thread(target=look), time.perf_counter()
    watcher.start()
    try:
        yield
    finally:
        stage.seconds = time.perf_counter() - started
        over.set()
        watcher.join()
        stage.peak_bytes = max(stage.peak_bytes, anonymous_bytes() - before)


def no_free_memory(device: torch.device) -> int | None:
    """A stand-in for a machine without free memory."""
    return 0


def anonymous_bytes() -> int:
    """The process's anonymous memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("This system does not report the anonymous memory of a process.")


if __name__ == "__main__":
    main()

"""The gain from each part of the capture engine on a CPU: the full engine, and the engine without one part.

    python benchmarks/capture.py [MODEL] [--dtype bfloat16] [--prompts 40] [--rounds 8] [--threads N]

The variants run alternately in one process: the full engine; padded rows instead of a token tree; torch's own weight
format. Prints medians over rounds of seconds and of the process's CPU seconds, which depend less on other work on the
machine, and their ratios to the full engine. The last line is JSON.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.attribution import contrast_set
from cna_core.circuits import capture as engine
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.prepacked import unpacked


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The capture engine on the CPU, in full and without one part.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--prompts", type=int, default=40, help="prompts of each class")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--threads", type=int, help="use 1 on a busy machine, where the CPU seconds of one thread are most reliable"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    model = load_model(options.model, "cpu", options.dtype)
    contrast = contrast_set(options.prompts)
    ways: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "whole": contextlib.nullcontext,
        "rows padded": lambda: patch.object(engine, "reads_trees", lambda *_: False),
        "weights as torch keeps them": lambda: unpacked(model.network),
    }
    wall: dict[str, list[float]] = {way: [] for way in ways}
    work: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.rounds + 1):
        for way, changed in ways.items():
            with changed():
                start, worked = time.perf_counter(), time.process_time()
                engine.capture(model, contrast, use_cache=False)
                if turn:  # the first touches every weight
                    wall[way].append(time.perf_counter() - start)
                    work[way].append(time.process_time() - worked)
    threads = torch.get_num_threads()
    print(f"{options.model} in {options.dtype} on the CPU, {threads} threads; {len(contrast)} prompts")
    report: dict[str, object] = {"benchmark": "capture", "model": options.model, "threads": threads}
    for way in ways:
        seconds, cpu_seconds = statistics.median(wall[way]), statistics.median(work[way])
        times, cpu_times = _ratio(wall[way], wall["whole"]), _ratio(work[way], work["whole"])
        print(f"  {way:<28} {seconds:6.2f} s, {times:5.2f} times; {cpu_seconds:6.2f} CPU s, {cpu_times:5.2f} times")
        report[way] = {"seconds": round(seconds, 3), "times": round(times, 3), "cpu_times": round(cpu_times, 3)}
    print(json.dumps(report))


def _ratio(taken: list[float], whole: list[float]) -> float:
    """The median over rounds of the ratio to the full engine in the same round."""
    return statistics.median(one / other for one, other in zip(taken, whole, strict=True))


if __name__ == "__main__":
    main()

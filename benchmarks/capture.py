"""What each part of the capture engine adds on a CPU: the engine whole, and with one part left out.

    python benchmarks/capture.py [MODEL] [--dtype bfloat16] [--prompts 40] [--rounds 8]

In one process, by turns: as it is; with one reader, which has all the threads; with the attention of the whole tree
instead of by blocks; with rows padded instead of as a tree; with weights as torch keeps them. Seconds, medians of the
rounds, and how many times as long as the whole engine. Prints text; the last line is JSON.
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
from cna_core.circuits import last_tokens, readers
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.prepacked import unpacked


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The capture engine, whole and with one part left out, on the CPU.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--prompts", type=int, default=40, help="prompts of each class")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    model = load_model(options.model, "cpu", options.dtype)
    contrast = contrast_set(options.prompts)
    ways: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "whole": contextlib.nullcontext,
        "one reader": lambda: patch.object(readers, "FEWEST_TOKENS", sys.maxsize),
        "attention of the whole tree": lambda: patch.object(last_tokens, "attention_by_blocks", contextlib.nullcontext),
        "rows padded": lambda: patch.object(engine, "reads_trees", lambda *_: False),
        "weights as torch keeps them": lambda: unpacked(model.network),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.rounds + 1):
        for way, changed in ways.items():
            with changed():
                start = time.perf_counter()
                engine.capture(model, contrast, use_cache=False)
                if turn:  # the first touches every weight
                    seconds[way].append(time.perf_counter() - start)
    threads = torch.get_num_threads()
    print(f"{options.model} in {options.dtype} on the CPU, {threads} threads; {len(contrast)} prompts")
    report: dict[str, object] = {"benchmark": "capture", "model": options.model, "threads": threads}
    for way, taken in seconds.items():
        median = statistics.median(taken)
        ratio = statistics.median(one / whole for one, whole in zip(taken, seconds["whole"], strict=True))
        print(f"  {way:<28} {median:6.2f} s, {ratio:5.2f} times as long")
        report[way] = {"seconds": round(median, 3), "times": round(ratio, 3)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()

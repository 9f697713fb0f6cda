"""The speed of CPU products with packed weights, compared with torch's own weight format.

    python benchmarks/prepacked.py [MODEL] [--rounds 3]

Both run alternately in one process, in bfloat16 and in float32: a decoded token for 1, 2, 8 and 32 rows, and a pass
of 512 tokens (milliseconds). Also prints the memory of the packed weights. The last line is JSON.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from transformers import DynamicCache

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.models.prepacked import PrepackedLinear, unpacked
from cna_core.prompts.chat_format import encode

GIB = 1 << 30
TOKENS = 8
"""Tokens decoded in one measurement."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Packed weights compared with torch's own weight format, on the CPU.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report: dict[str, object] = {"benchmark": "prepacked", "model": options.model, "threads": torch.get_num_threads()}
    print(f"{options.model} on the CPU, {torch.get_num_threads()} threads")
    for dtype in ("bfloat16", "float32"):
        model = load_model(options.model, "cpu", dtype)
        packed = [module for module in model.network.modules() if isinstance(module, PrepackedLinear)]
        taken = sum(module.weight.nbytes for module in packed) / GIB
        print(f"  {dtype}: {len(packed)} layers packed, {taken:.2f} GiB of the process's {rss():.2f} GiB")
        figures = {
            **{f"decode {rows} rows": turns(model, decoding(model, rows), options.rounds) for rows in (1, 2, 8, 32)},
            "512 tokens": turns(model, reading(model, 512), options.rounds),
        }
        for name, (plain, ready) in figures.items():
            print(f"    {name:<16} {1e3 * plain:8.1f} ms -> {1e3 * ready:8.1f} ms: {plain / ready:.2f} times as fast")
        report[dtype] = {
            "packed_gib": round(taken, 3),
            **{
                name: {"plain_ms": round(1e3 * plain, 2), "packed_ms": round(1e3 * ready, 2)}
                for name, (plain, ready) in figures.items()
            },
        }
        del model, packed
    print(json.dumps(report))


def turns(model: LoadedModel, work: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Median seconds with torch's own weight format and with packed weights, measured alternately."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for ready, seconds in enumerate(taken):
            with contextlib.nullcontext() if ready else unpacked(model.network), torch.no_grad():
                work()
                seconds.append(work())
    return statistics.median(taken[0]), statistics.median(taken[1])


def decoding(model: LoadedModel, rows: int) -> Callable[[], float]:
    """Seconds of one decoded token, the median of several."""
    prompt = torch.tensor([encode(model, "What is a lock?")] * rows)

    def work() -> float:
        cache = DynamicCache()
        model.network(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
        taken = []
        for _ in range(TOKENS):
            started = time.perf_counter()
            model.network(input_ids=prompt[:, -1:], past_key_values=cache, use_cache=True)
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    return work


def reading(model: LoadedModel, tokens: int) -> Callable[[], float]:
    """Seconds of one pass of this many tokens, without the LM head."""
    prompt = torch.tensor([[token % 1000 for token in range(tokens)]])

    def work() -> float:
        started = time.perf_counter()
        model.network.base_model(input_ids=prompt, use_cache=False)
        return time.perf_counter() - started

    return work


def rss() -> float:
    """The present memory of this process, in GiB."""
    held: int = psutil.Process().memory_info().rss
    return held / GIB


if __name__ == "__main__":
    main()

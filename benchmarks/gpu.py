"""What a GPU does with the project's three kinds of work, on random weights of an 8B model's shape, in six minutes.

    python benchmarks/gpu.py [--minutes 6]
    python benchmarks/gpu.py --tiny

Builds a Llama of the shape of Llama-3.1-8B on the device, in bfloat16 with random weights, and measures one after the
other: recording 200 prompts (prompts/s), measuring their effects (prompts/s), a sweep of five strengths (answers and
tokens a second; every answer has as many tokens, because random weights end none), and two lanes against one lane (time
per token). For each it prints the share of the device's measured peak of matrix products that the work's own products
reach; of decoding, also the share of the time that reading the weights once takes at the measured bandwidth. What no
longer fits into the minutes is left out, and said so. Nothing is downloaded: the tokenizer has one token a word.

`--tiny` runs the same on the CPU with a tiny shape, to try the script. Without a CUDA device and without `--tiny` it
says so and measures nothing. Prints text; the last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.attribution import SHAPES, contrast_set, device_name, matrix_peak, peak_memory, random_llama, stopwatch
from benchmarks.lanes import some_circuit
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effects_of
from cna_core.decoding import lanes as lanes_module
from cna_core.decoding.lanes import Lane, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet

STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 2.0)
ROUNDS = 3
GIB = 1 << 30


@dataclass(frozen=True)
class Amounts:
    """How much is measured.

    Args:
        shape: a name in `attribution.SHAPES`.
        prompts: prompts of each class that are recorded.
        effects: prompts whose effects are measured, of both classes together.
        swept: prompts of the sweep, each at all strengths.
        tokens: the tokens of each answer.
    """

    shape: str
    prompts: int
    effects: int
    swept: int
    tokens: int


WHOLE = Amounts("8b", prompts=100, effects=40, swept=24, tokens=64)
TINY = Amounts("tiny", prompts=6, effects=4, swept=2, tokens=4)


@dataclass
class Bench:
    """The model and what is known of its device.

    Args:
        peak: FLOP/s of large matrix products.
        bandwidth: bytes/s at which memory is read and written.
        weights: the numbers of the decoder's weights, without embedding and LM head.
    """

    model: LoadedModel
    contrast: ContrastSet
    amounts: Amounts
    peak: float
    bandwidth: float
    weights: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Capture, effects and a sweep on a GPU, on random weights of 8B.")
    parser.add_argument("--minutes", type=float, default=6.0, help="begin nothing more after so many minutes")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape on the CPU, to try the script")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        print("There is no CUDA device here; --tiny tries the script on the CPU.")
        return
    until = time.monotonic() + 60 * options.minutes
    bench = prepared(TINY if options.tiny else WHOLE, torch.device("cpu" if options.tiny else "cuda"))
    shown = device_name(bench.model.device)
    print(
        f"Llama of the shape {bench.amounts.shape}, random bfloat16 weights, on {shown}, torch {torch.__version__}; "
        f"measured: {bench.peak / 1e12:.3g} TFLOP/s in matrix products, {bench.bandwidth / 1e9:.4g} GB/s"
    )
    report: dict[str, object] = {"benchmark": "gpu", "shape": bench.amounts.shape, "device": shown}
    report |= {"matrix_peak_tflops": round(bench.peak / 1e12, 3), "bandwidth_gbs": round(bench.bandwidth / 1e9, 2)}
    with patch.object(lanes_module, "end_tokens", lambda _model: frozenset()):  # every answer has as many tokens
        for work in (capturing, sweeping, lanes, effects):
            if time.monotonic() > until:
                print(f"  {work.__name__}: left out, the minutes are over")
                continue
            for name, value in work(bench).items():
                print(f"  {name.replace('_', ' '):52} {value:12.4g}", flush=True)
                report[name] = float(f"{value:.4g}")
    print(json.dumps(report))


def prepared(amounts: Amounts, device: torch.device) -> Bench:
    """The model on the device, and what the device can do."""
    contrast = contrast_set(amounts.prompts)
    model = random_llama(SHAPES[amounts.shape], str(device), contrast)
    model.network.requires_grad_(False)
    weights = sum(weight.numel() for weight in model.network.model.layers.parameters())
    return Bench(model, contrast, amounts, matrix_peak(device), bandwidth(device), weights)


def capturing(bench: Bench) -> dict[str, float]:
    """Recording all prompts, with nothing kept on disk."""
    model, rows = bench.model, [encode(bench.model, prompt) for prompt in bench.contrast.prompts]
    shared = shared_prefix_length(rows)
    computed = shared + sum(len(row) - shared for row in rows)
    record = lambda: capture(model, bench.contrast, use_cache=False)  # noqa: E731
    seconds = timed(model, record)
    memory, _ = peak_memory(model, record)
    return {
        "capture_prompts_per_second": len(rows) / seconds,
        "capture_share_of_matrix_peak": 2 * bench.weights * computed / seconds / bench.peak,
        "capture_gib_above_the_weights": memory / GIB,
    }


def effects(bench: Bench) -> dict[str, float]:
    """Measuring effects: a forward and a backward pass for each prompt, three times the products of a forward pass."""
    model, half = bench.model, bench.amounts.effects // 2
    some = contrast_set(half)
    refused, openings = np.ones(len(some.positive), dtype=bool), [1, 2, 3]
    settings = EffectSettings(contrast=True)

    def measure() -> object:
        return effects_of(model, some, refused, openings, settings=settings, use_cache=False)

    seconds = timed(model, measure)
    memory, _ = peak_memory(model, measure)
    rows = [encode(model, prompt) for prompt in some.prompts]
    shared = shared_prefix_length(rows)
    computed = shared + sum(len(row) - shared for row in rows)
    return {
        "effects_prompts_per_second": len(rows) / seconds,
        "effects_share_of_matrix_peak": 6 * bench.weights * computed / seconds / bench.peak,
        "effects_gib_above_the_weights": memory / GIB,
    }


def sweeping(bench: Bench) -> dict[str, float]:
    """Prompts at all strengths together, in one batch; the shares count the written tokens and not the prompts."""
    model, circuit = bench.model, some_circuit(bench.model)
    asked = bench.contrast.positive.prompts[: bench.amounts.swept]
    rows = [Lane(prompt, strength) for prompt in asked for strength in STRENGTHS]
    prefixes = PrefixCaches(model, 1 << 30)

    def sweep() -> object:
        return exhausted(generate(model, rows, circuit, max_new_tokens=bench.amounts.tokens, prefixes=prefixes))

    seconds = timed(model, sweep)
    tokens = len(rows) * bench.amounts.tokens
    head = model.network.get_output_embeddings().weight.numel()
    return {
        "sweep_rows": len(rows),
        "sweep_answers_per_second": len(rows) / seconds,
        "sweep_tokens_per_second": tokens / seconds,
        "sweep_share_of_matrix_peak": 2 * (bench.weights + head) * tokens / seconds / bench.peak,
        "sweep_share_of_reading_the_weights": bench.amounts.tokens * weights_seconds(bench, head) / seconds,
    }


def lanes(bench: Bench) -> dict[str, float]:
    """One lane, and a baseline with a steered lane, per token."""
    model, circuit = bench.model, some_circuit(bench.model)
    prompt, tokens = bench.contrast.positive.prompts[0], bench.amounts.tokens

    def write(count: int) -> Callable[[], object]:
        some = [Lane(prompt, float(strength)) for strength in range(count)]
        return lambda: exhausted(generate(model, some, circuit, max_new_tokens=tokens))

    one, two = (timed(model, write(count)) for count in (1, 2))
    head = model.network.get_output_embeddings().weight.numel()
    return {
        "one_lane_ms_per_token": 1000 * one / tokens,
        "two_lanes_ms_per_token": 1000 * two / tokens,
        "two_lanes_to_one": two / one,
        "one_lane_share_of_reading_the_weights": tokens * weights_seconds(bench, head) / one,
    }


def weights_seconds(bench: Bench, head: int) -> float:
    """The seconds that reading all weights once takes at the measured bandwidth, the least of a step."""
    return (bench.weights + head) * bench.model.dtype.itemsize / bench.bandwidth


def timed(model: LoadedModel, work: Callable[[], object]) -> float:
    """The median seconds of some rounds, after one that does not count."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        with stopwatch(model.device) as elapsed:
            work()
        seconds.append(elapsed())
    return statistics.median(seconds)


def exhausted(steps: Iterator[object]) -> int:
    """The number of steps, after the last."""
    return sum(1 for _ in steps)


def bandwidth(device: torch.device) -> float:
    """Measured bytes/s of a large copy, read and written, the best of several."""
    source = torch.ones((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        with stopwatch(device) as elapsed:
            target.copy_(source)
        best = min(best, elapsed())
    return 2 * source.nbytes / best


if __name__ == "__main__":
    main()

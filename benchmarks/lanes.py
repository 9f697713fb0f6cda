"""The speed of the decode loop with one and two lanes, compared with transformers' `generate`, and of the gate meter.

    python benchmarks/lanes.py [MODEL] [--rounds 5] [--tokens 128] [--dtype bfloat16]

All run alternately in one process: in every round, each generates the same number of tokens for the same prompt of
about 40 tokens, greedily and without an end token. Ratios are of the medians over rounds. Targets on two CPU cores
with the default model: two lanes take at most 1.15 times as long as one row of `generate` and as one lane, and at
most 1.7 times as long as one lane until their first tokens; one lane takes no longer per token than `generate`;
recording the circuit's activity by layer and each token's probability adds at most 0.15 of the time per token; the
meter measures a new message at 13 strengths within 0.5 s. Prints text; the last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.generation.streamers import BaseStreamer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.decoding import lanes as lanes_module
from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode

PROMPT = "Explain to a friend how bread is baked in a wood oven."
METER_MESSAGES = ("How do I open a locked door?", "Write a short poem about a rainy day.", "What should I read next?")
METER_STRENGTHS = np.arange(-1, 2.01, 0.25)
FRACTION = 0.004


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Lanes against transformers' generate.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    model = load_model(options.model, dtype=options.dtype)
    setattr(lanes_module, "end_tokens", lambda _model: frozenset())  # noqa: B010 — every run writes as many tokens
    circuit = some_circuit(model)
    print(f"{model.name}, {model.dtype}, {torch.get_num_threads()} threads, {len(circuit)} neurons")
    seconds = decode_seconds(model, circuit, options.rounds, options.tokens)
    meter = meter_seconds(model, circuit)
    report = ratios(seconds) | {"meter_s": statistics.median(meter)}
    for name, value in report.items():
        print(f"{name:32} {value:.3f}")
    about = {"model": model.name, "dtype": str(model.dtype).removeprefix("torch."), "rounds": options.rounds}
    rounded = {name: round(value, 4) for name, value in report.items()}
    print(json.dumps({"benchmark": "lanes", **about, "new_tokens": options.tokens, **rounded}))


def some_circuit(model: LoadedModel) -> Circuit:
    """A random circuit of a useful size for the default model; the time does not depend on the neurons."""
    random = np.random.default_rng(0)
    size = round(FRACTION * model.layout.total)
    layers, neurons = model.layout.locate(random.choice(model.layout.total, size=size, replace=False))
    figures = random.normal(size=(4, size)).astype(np.float32)
    prompts = CircuitPrompts(positive=1, negative=1, sha256="0" * 64)
    return Circuit(model.identity, CircuitSettings(top_k=size), prompts, layers, neurons, *figures)


def decode_seconds(
    model: LoadedModel, circuit: Circuit, rounds: int, tokens: int
) -> dict[str, list[tuple[float, float, float]]]:
    """For each way of decoding and each round: the seconds to the first token, per token after it, and in all."""
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "generate": lambda: by_transformers(model, tokens),
        "one": lambda: by_lanes(model, [Lane(PROMPT)], circuit, tokens),
        "two": lambda: by_lanes(model, [Lane(PROMPT), Lane(PROMPT, 1.0)], circuit, tokens),
        "two_recorded": lambda: by_lanes(model, [Lane(PROMPT), Lane(PROMPT, 1.0)], circuit, tokens, record=True),
        "two_measured": lambda: by_lanes(model, [Lane(PROMPT), Lane(PROMPT, 1.0)], circuit, tokens, measure=True),
    }
    print(f"prompt of {len(encode(model, PROMPT))} tokens, {tokens} new ones, {rounds} rounds")
    for way in ways.values():
        way()  # warm-up
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in list(ways.items())[number % len(ways) :] + list(ways.items())[: number % len(ways)]:
            first, whole = way()
            seconds[name].append((first, (whole - first) / (tokens - 1), whole))
            milliseconds = 1000 * seconds[name][-1][1]
            print(f"  round {number + 1} {name:13} first {first:.3f} s, then {milliseconds:.1f} ms/token")
    return seconds


def by_lanes(
    model: LoadedModel, lanes: list[Lane], circuit: Circuit, tokens: int, **recording: Any
) -> tuple[float, float]:
    """Seconds until every lane's first token, and until the last one."""
    started_at, first = time.perf_counter(), 0.0
    for number, _step in enumerate(generate(model, lanes, circuit, max_new_tokens=tokens, **recording)):
        if number == len(lanes) - 1:
            first = time.perf_counter() - started_at
    return first, time.perf_counter() - started_at


def by_transformers(model: LoadedModel, tokens: int) -> tuple[float, float]:
    """The same for one row of transformers' own loop."""
    clock = _FirstToken()
    inputs = torch.tensor([encode(model, PROMPT)], device=model.device)
    started_at = time.perf_counter()
    options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    options |= {"do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(inputs)
    with torch.inference_mode():
        model.network.generate(inputs, attention_mask=mask, streamer=clock, **options)  # type: ignore[operator]
    return clock.at - started_at, time.perf_counter() - started_at


class _FirstToken(BaseStreamer):
    """Notes when the first new token came; the prompt comes before it."""

    def __init__(self) -> None:
        self.calls, self.at = 0, 0.0

    def put(self, value: torch.Tensor) -> None:
        self.calls += 1
        if self.calls == 2:
            self.at = time.perf_counter()

    def end(self) -> None:
        pass


def meter_seconds(model: LoadedModel, circuit: Circuit) -> list[float]:
    """Seconds for each new message at all strengths, after the first one has filled the caches."""
    prefixes, seconds = PrefixCaches(model), []
    for message in ("Hello.", *METER_MESSAGES):
        started_at = time.perf_counter()
        first_token_logits(model, [Lane(message, float(s)) for s in METER_STRENGTHS], circuit, prefixes=prefixes)
        seconds.append(time.perf_counter() - started_at)
    print("meter: caches and first message {:.2f} s, then {:.2f}, {:.2f}, {:.2f} s".format(*seconds))
    return seconds[1:]


def ratios(seconds: dict[str, list[tuple[float, float, float]]]) -> dict[str, float]:
    """Medians over rounds, and their ratios."""
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in seconds.items()}
    return {
        "generate_ms_per_token": 1000 * middle["generate"][1],
        "one_lane_ms_per_token": 1000 * middle["one"][1],
        "two_lanes_ms_per_token": 1000 * middle["two"][1],
        "one_lane_to_generate_per_token": middle["one"][1] / middle["generate"][1],
        "two_lanes_to_one": middle["two"][2] / middle["one"][2],
        "two_lanes_to_generate": middle["two"][2] / middle["generate"][2],
        "recorded_to_two_lanes": middle["two_recorded"][1] / middle["two"][1],
        "measured_to_two_lanes": middle["two_measured"][2] / middle["two"][2],
        "first_token_two_to_one": middle["two"][0] / middle["one"][0],
        "first_token_two_to_generate": middle["two"][0] / middle["generate"][0],
    }


if __name__ == "__main__":
    main()

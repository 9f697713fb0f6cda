"""The decoding speed next to other work, with the platform's way of waiting and with that of `cna_core.threads`.

    python benchmarks/threads.py [MODEL] [--tokens 12] [--rounds 2]

Every measurement is its own process: two lanes decode alone, next to a thread of the same process that only runs Python
(as drawing a page does), and next to another process that keeps one core busy. The ratio is the time per token with the
platform's way of waiting, divided by ours; above 1, ours is faster. A measurement ends after two minutes and counts as
two minutes. Prints text; the last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.models.catalog import SMALL_MODEL
from cna_core.threads import OTHER_VARIABLES, SPIN_VARIABLE, share_cores

PATIENCE_SECONDS = 120.0
BESIDE = ("nothing", "a thread", "a process")
WAYS = ("platform", "ours")
MESSAGES = ("Write a story about the sea.", "Write a long text about a hill.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Decoding next to other work.")
    parser.add_argument("model", nargs="?", default=SMALL_MODEL)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "BESIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.model, options.tokens, *options.measure))
        return
    found: dict[str, float] = {}
    for beside in BESIDE:
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                seconds[way].append(in_a_process(options.model, options.tokens, way, beside))
        medians = {way: statistics.median(seconds[way]) for way in WAYS}
        found[beside] = medians["platform"] / medians["ours"]
        told = ", ".join(f"{way} {1e3 * median:.0f} ms a token" for way, median in medians.items())
        print(f"beside {beside}: {told}, ratio {found[beside]:.2f}", flush=True)
    print(json.dumps({"benchmark": "threads", "model": options.model, **{k: round(v, 2) for k, v in found.items()}}))


def in_a_process(model: str, tokens: int, way: str, beside: str) -> float:
    """Seconds a token, measured in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if name not in (SPIN_VARIABLE, *OTHER_VARIABLES)}
    command = [sys.executable, __file__, model, "--tokens", str(tokens), "--measure", way, beside]
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside == "a process" else None
    try:
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
        ).stdout
        return float(output.split()[-1])
    except subprocess.TimeoutExpired:
        print(f"{way} beside {beside}: given up after {PATIENCE_SECONDS:.0f} s", flush=True)
        return PATIENCE_SECONDS / tokens
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()


def measure(name: str, tokens: int, way: str, beside: str) -> float:
    """Seconds a token of two lanes in this process."""
    if way == "ours":
        share_cores()
    import cna_core as cna  # after share_cores

    model = cna.load_model(name, device="cpu", dtype="float32")
    lanes = [cna.Lane(message) for message in MESSAGES]
    list(cna.generate(model, lanes, max_new_tokens=2))
    over = threading.Event()
    if beside == "a thread":
        threading.Thread(target=_run_python, args=(over,), daemon=True).start()
    started = time.perf_counter()
    steps = list(cna.generate(model, lanes, max_new_tokens=tokens))
    seconds = time.perf_counter() - started
    over.set()
    return seconds / (len(steps) / len(lanes))


def _run_python(over: threading.Event) -> None:
    turns = 0
    while not over.is_set():
        turns += 1


if __name__ == "__main__":
    main()

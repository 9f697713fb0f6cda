"""The gain from batching in the endpoint: 16 clients at mixed strengths, compared with the same requests one at a time.

    python benchmarks/serve.py [MODEL] [--clients 16] [--tokens 48] [--rounds 3] [--dtype float32]

A real server runs on a loopback port; every client streams one greedy answer, each to a different question. It
measures three medians over rounds: tokens per second of all clients together, compared with one client after the
other (target: 3 times); the steps of the running batch for which a late request waits for its first token, beyond its
own prefill (target: 3); and a single client's time per token, compared with the library's own lane (target: equal).
It also counts the answers with the same text in both cases. Prints text; the last line is JSON.
"""

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.lanes import some_circuit
from cna_core.circuits.circuit import Circuit
from cna_core.decoding import lanes as lanes_module
from cna_core.decoding.lanes import Lane, generate
from cna_core.interventions.scale import Scale
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.serving import engine as engine_module
from cna_core.serving.named_models import NamedModels
from cna_core.serving.server import RunningServer, listen

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, -1.0)
THINGS = (
    "a wood oven", "a sailing boat", "the tides", "a violin", "a glacier", "the seasons", "a lighthouse", "a compass",
    "an old clock", "a volcano", "the rainbow", "a steam engine", "a beehive", "the night sky", "a mill", "a bridge",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One streamed answer: its text, its number of tokens, and the times of the first and the last (seconds)."""

    text: str
    tokens: int
    first: float
    whole: float

    @property
    def seconds_per_token(self) -> float:
        return (self.whole - self.first) / (self.tokens - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The endpoint: concurrent clients compared with one at a time.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    model = load_model(options.model, dtype=options.dtype)
    for module in (lanes_module, engine_module):  # every answer has as many tokens
        setattr(module, "end_tokens", lambda _model: frozenset())  # noqa: B010
    circuit = some_circuit(model)
    print(f"{model.name}, {model.dtype}, {torch.get_num_threads()} threads, {len(circuit)} neurons")
    with serving(model, circuit) as address:
        report = measured(Client(address, options.tokens), model, circuit, options.clients, options.rounds)
    for name, value in report.items():
        print(f"{name:36} {value:.3f}")
    about = {"model": model.name, "dtype": str(model.dtype).removeprefix("torch."), "clients": options.clients}
    about |= {"new_tokens": options.tokens, "rounds": options.rounds}
    rounded = {name: round(value, 4) for name, value in report.items()}
    print(json.dumps({"benchmark": "serve", **about, **rounded}))


@contextlib.contextmanager
def serving(model: LoadedModel, circuit: Circuit) -> Iterator[str]:
    """The model behind the endpoint on a free port; the block's value is its address."""
    listening = listen("127.0.0.1", 0)
    listening.listen(64)
    server = RunningServer(model, NamedModels({"gate": Scale(circuit)}))
    thread = threading.Thread(target=server.serve_on, args=(listening,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Client:
    """Asks the endpoint.

    Args:
        address: of the server.
        tokens: of every answer.
    """

    def __init__(self, address: str, tokens: int) -> None:
        self.tokens = tokens
        self._http = httpx.Client(base_url=address, timeout=600, limits=httpx.Limits(max_connections=None))

    def ask(self, number: int, arrived: threading.Event | None = None) -> Answer:
        """The answer to the question of that number, at its strength; sets `arrived` with the first token."""
        body = {
            "model": f"gate@{strength(number)}",
            "messages": [{"role": "user", "content": question(number)}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "stream": True,
        }
        began, times, text = time.perf_counter(), [], ""
        with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            for delta in _deltas(response):
                if "role" not in delta:
                    times.append(time.perf_counter() - began)
                    text += delta.get("content", "")
                    if arrived is not None:
                        arrived.set()
        return Answer(text, len(times), times[0], times[-1])


def _deltas(response: httpx.Response) -> Iterator[dict[str, str]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))["choices"][0]["delta"]


def strength(number: int) -> float:
    """Of the client of that number."""
    return STRENGTHS[number % len(STRENGTHS)]


def question(number: int) -> str:
    """Of the client of that number."""
    return f"Explain to a friend how {THINGS[number % len(THINGS)]} works, and why people like it."


def measured(client: Client, model: LoadedModel, circuit: Circuit, clients: int, rounds: int) -> dict[str, float]:
    """The medians over the rounds."""
    client.ask(0)  # warm-up
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        figures = one_round(client, model, circuit, clients)
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
        print(f"  round {number + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return {name: statistics.median(values) for name, values in found.items()}


def one_round(client: Client, model: LoadedModel, circuit: Circuit, clients: int) -> dict[str, float]:
    """One client after the other, then all at once, then one that arrives late."""
    began = time.perf_counter()
    alone = [client.ask(number) for number in range(clients)]
    alone_seconds = time.perf_counter() - began
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        together = list(pool.map(client.ask, range(clients)))
    together_seconds = time.perf_counter() - began
    late, step = late_arrival(client, clients)
    tokens = sum(answer.tokens for answer in together)
    lone = statistics.median(answer.seconds_per_token for answer in alone)
    return {
        "alone_tokens_per_second": tokens / alone_seconds,
        "together_tokens_per_second": tokens / together_seconds,
        "together_to_alone": alone_seconds / together_seconds,
        "same_answers": float(sum(a.text == b.text for a, b in zip(alone, together, strict=True))),
        "step_seconds": step,
        "first_token_alone_seconds": alone[-1].first,
        "first_token_late_seconds": late.first,
        "late_steps_beyond_prefill": (late.first - alone[-1].first) / step,
        "lone_to_library_per_token": lone / library_seconds_per_token(model, circuit, client.tokens),
    }


def late_arrival(client: Client, clients: int) -> tuple[Answer, float]:
    """The last client's answer, who comes when all the others are being answered; and the seconds of a step then."""
    arrived = [threading.Event() for _ in range(clients - 1)]
    with ThreadPoolExecutor(clients - 1) as pool:
        others = [pool.submit(client.ask, number, arrived[number]) for number in range(clients - 1)]
        for event in arrived:
            event.wait()
        late = client.ask(clients - 1)
        steps = [other.result().seconds_per_token for other in others]
    return late, statistics.median(steps)


def library_seconds_per_token(model: LoadedModel, circuit: Circuit, tokens: int) -> float:
    """Of one lane of `generate`, with nothing else under way."""
    times = []
    for _ in generate(model, [Lane(question(1), strength(1))], circuit, max_new_tokens=tokens):
        times.append(time.perf_counter())
    return (times[-1] - times[0]) / (tokens - 1)


if __name__ == "__main__":
    main()

"""A real server over a tiny model, in a thread of the test, and clients for it."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2 as httpx
import openai

from cna_core.circuits.circuit import Circuit
from cna_core.interventions.scale import Scale
from cna_core.models.loaded import LoadedModel
from cna_core.serving.app import Limits
from cna_core.serving.named_models import NamedModels
from cna_core.serving.server import RunningServer, listen


@contextlib.contextmanager
def served(
    model: LoadedModel,
    circuits: Mapping[str, Circuit],
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
) -> Iterator["Served"]:
    """The model behind a server on a free loopback port."""
    listening = listen("127.0.0.1", 0)
    listening.listen(64)  # so that a client that comes before the server's first turn waits for it
    models = NamedModels({name: Scale(circuit) for name, circuit in circuits.items()})
    server = RunningServer(model, models, limits=limits, api_key=api_key)
    thread = threading.Thread(target=server.serve_on, args=(listening,))
    thread.start()
    try:
        yield Served(server, f"http://127.0.0.1:{listening.getsockname()[1]}", api_key)
    finally:
        server.should_exit = True
        thread.join()


class Served:
    """A running server, as its clients see it."""

    def __init__(self, server: RunningServer, address: str, api_key: str | None) -> None:
        self.server, self.address = server, address
        self.client = openai.OpenAI(base_url=f"{address}/v1", api_key=api_key or "none", max_retries=0)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.address}{path}", json=body, timeout=60, **options)

    def wait_until_empty(self) -> None:
        """Return when no answer is under way: asked of the server itself, which ends what nobody waits for."""
        while self.server.engine.answers:
            httpx.get(f"{self.address}/health", timeout=60)

    @contextlib.contextmanager
    def between_two_tokens(self) -> Iterator[None]:
        """Hold the engine while the block runs, so that all that is asked in it is let in with the next token."""
        begun, go_on = threading.Event(), threading.Event()

        def hold(_model: object, _prefixes: object) -> None:
            begun.set()
            go_on.wait()

        held = self.server.engine.do(hold)
        begun.wait()
        try:
            yield
        finally:
            go_on.set()
            held.result()

    def wait_until_asked(self, answers: int) -> None:
        """Return when so many answers are under way."""
        while httpx.get(f"{self.address}/health", timeout=60).json()["answers"] < answers:
            pass

"""The server process: a socket, uvicorn, and the engine's thread."""

import socket

import uvicorn

from cna_core.errors import CnaError
from cna_core.models.loaded import LoadedModel
from cna_core.serving.app import Limits, create_app
from cna_core.serving.engine import Engine
from cna_core.serving.named_models import NamedModels

CLOSING_SECONDS = 3
"""The time that running answers have after the server was told to stop."""


def listen(host: str, port: int) -> socket.socket:
    """The server's socket. It is opened before the model is loaded, so that a used port is reported at once.

    Raises:
        CnaError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CnaError(f"{host}:{port} is not available ({error.strerror}): choose another --port.") from error
    return listening


class RunningServer(uvicorn.Server):
    """A server with its engine.

    Args:
        model: the served model; the server has exclusive use of it.
        models: the models that clients can name.
        limits, api_key: see `create_app`.
    """

    def __init__(
        self, model: LoadedModel, models: NamedModels, *, limits: Limits | None = None, api_key: str | None = None
    ) -> None:
        self.engine = Engine(model)
        app = create_app(self.engine, models, limits=limits, api_key=api_key)
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=CLOSING_SECONDS
            )
        )

    def serve_on(self, listening: socket.socket) -> None:
        """Serve until `should_exit` is set or the process is told to stop."""
        self.engine.start()
        try:
            self.run(sockets=[listening])
        finally:
            self.engine.close()


def run(
    model: LoadedModel,
    models: NamedModels,
    listening: socket.socket,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
) -> None:
    """Serve in this thread until Ctrl-C."""
    RunningServer(model, models, limits=limits, api_key=api_key).serve_on(listening)

"""The command `app`: start the web app in this process, from any folder."""

import importlib.util
import ipaddress
import runpy
import socket
import sys
from typing import Annotated

import typer

from cna_core.errors import CnaError

LOOPBACK = "127.0.0.1"
WILDCARDS = ("0.0.0.0", "::")


def app(
    port: Annotated[
        int | None,
        typer.Option(
            envvar="CNA_PORT",
            min=1,
            max=65535,
            help="Port to listen on.  [default: 8501, or the next free one]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="CNA_HOST", help="Address to listen on. 0.0.0.0 listens on all networks.")
    ] = LOOPBACK,
) -> None:
    """Start the web app, and open it in the browser if there is one."""
    from cna_core.limits import strength_limit
    from cna_core.paths import APP

    if importlib.util.find_spec("streamlit") is None or importlib.util.find_spec("plotly") is None:
        raise CnaError("The web app is not installed: run pip install 'refusal-gate-explorer[app]'.")
    strength_limit()  # report an invalid value before anything starts
    if port is not None:
        require_free(host, port)
    if not is_loopback(host):
        sys.stderr.write(
            f"Listening on {host}: everyone who can reach this machine can use the app without a password. They can "
            "load models, get answers from steered models, and read the prompts, circuits and runs saved here: set "
            "CNA_STRENGTH_LIMIT=0 so that nobody can lower refusals, and CNA_REMOTE_CODE=0 so that nobody can run "
            "code that comes with a model.\n"
        )
    sys.argv = ["streamlit", "run", str(APP / "app.py"), "--server.address", host]
    if host in WILDCARDS:  # otherwise Streamlit asks a server on the internet for this machine's public address
        sys.argv += ["--browser.serverAddress", "localhost"]
    if port is not None:
        sys.argv += ["--server.port", str(port)]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


def is_loopback(host: str) -> bool:
    """Whether the address can be reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_free(host: str, port: int) -> None:
    """Check that a server can listen there.

    Raises:
        CnaError: another program listens on the port, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise CnaError(
            f"Cannot listen on {host}, port {port} ({error.strerror}): choose another --port or --host."
        ) from error

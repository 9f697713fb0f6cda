"""The command `app`: start the web app in this process, from any folder."""

import importlib.util
import ipaddress
import os
import runpy
import socket
import sys
from typing import Annotated

import typer

from cna_core.errors import CnaError

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
"""The names under which a browser on this machine reaches the app."""
ADDRESS_VARIABLE = "STREAMLIT_SERVER_ADDRESS"
NAMES_VARIABLE = "STREAMLIT_SERVER_ALLOWED_HOSTS"
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
    everyone: Annotated[
        bool,
        typer.Option(
            "--everyone", envvar="CNA_EVERYONE", help="Confirm that others may use the app; for other addresses."
        ),
    ] = False,
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
        if not everyone:
            raise CnaError(f"{_MEANING.format(host=host)} Add --everyone (or CNA_EVERYONE=1) if that is what you want.")
        sys.stderr.write(f"{_MEANING.format(host=host)}\n")
    elif os.environ.get(ADDRESS_VARIABLE, host) != host:
        sys.stderr.write(f"{ADDRESS_VARIABLE} is not used: the app listens on {host}. Use --host.\n")
    sys.argv = ["streamlit", "run", str(APP / "app.py"), "--server.address", host]
    if (
        is_loopback(host) and NAMES_VARIABLE not in os.environ
    ):  # otherwise a web page could reach the app under a name of its own (DNS rebinding)
        for name in dict.fromkeys((*LOCAL_NAMES, host)):
            sys.argv += ["--server.allowedHosts", name]
    if host in WILDCARDS:  # otherwise Streamlit asks a server on the internet for this machine's public address
        sys.argv += ["--browser.serverAddress", "localhost"]
    if port is not None:
        sys.argv += ["--server.port", str(port)]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


_MEANING = (
    "Listening on {host} means that everyone who can reach this machine can use the app without a password. They can "
    "load models, get answers from steered models, and read, change and delete the prompts, circuits and runs saved "
    "here: set CNA_STRENGTH_LIMIT=0 so that nobody can lower refusals, and CNA_REMOTE_CODE=0 so that nobody can run "
    "code that comes with a model."
)


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

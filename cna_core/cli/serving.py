"""The command that serves a model to other programs: `serve`."""

import os
import sys
from typing import Annotated

import typer

from cna_core.cli.loading import load
from cna_core.cli.options import Device, DeviceMap, Dtype, Model, Quantization, Transfer, TrustRemoteCode
from cna_core.cli.terminal import working
from cna_core.errors import CnaError


def serve(
    model: Model,
    circuit: Annotated[
        list[str] | None,
        typer.Option(
            help="Circuit file, served as gate@S; NAME=FILE serves it as NAME@S and may be given several times.",
            metavar="FILE|NAME=FILE",
            show_default=False,
        ),
    ] = None,
    transfer: Transfer = False,
    method: Annotated[str, typer.Option(help="How it is steered: scale, or any other registered method.")] = "scale",
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key clients send.", show_default=False)
    ] = None,
    max_answers: Annotated[int, typer.Option(min=1, help="Answers under way at once.")] = 64,
    max_context: Annotated[
        int | None, typer.Option(min=2, help="Longest prompt with its answer, in tokens.", show_default=False)
    ] = None,
    max_seconds: Annotated[float, typer.Option(min=1.0, help="Longest time of one request.")] = 600.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a model and its steered variants over the OpenAI API, the strength in the model's name."""
    if not circuit and method == "scale":
        raise CnaError("Name a circuit file with --circuit: the method 'scale' multiplies its neurons.")
    key = _key(api_key_env)
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise CnaError("Serving needs two more packages: pip install 'refusal-gate-explorer[serve]'.") from None
    from cna_core.circuits.circuit import Circuit
    from cna_core.evaluation.fitting import fit
    from cna_core.serving.app import Limits
    from cna_core.serving.guard import is_loopback
    from cna_core.serving.named_models import ONLY_NAME, NamedModels, named_circuits
    from cna_core.serving.server import listen, run

    if key is None and not is_loopback(host):
        raise CnaError(f"{host} can be reached by others: set a key and name its variable with --api-key-env.")
    circuits = {name: Circuit.load(file) for name, file in named_circuits(circuit or []).items()}
    listening = listen(host, port)
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        if transfer:
            circuits = {name: chosen.transferred_to(loaded.identity) for name, chosen in circuits.items()}
        for chosen in circuits.values():
            chosen.check_model(loaded.identity)
        fitted = {name: fit(loaded, method, chosen, **watching) for name, chosen in circuits.items()}
        if not circuits:
            fitted[ONLY_NAME] = fit(loaded, method, **watching)
    models = NamedModels(fitted)
    address = listening.getsockname()[:2]
    sys.stderr.write(f"Serving {', '.join(models.listed())} at http://{address[0]}:{address[1]}/v1\n")
    sys.stderr.flush()
    limits = Limits(context_tokens=max_context, answers=max_answers, seconds=max_seconds)
    run(loaded, models, listening, limits=limits, api_key=key)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise CnaError(f"The environment variable {variable} is empty: put the key there.")
    return key

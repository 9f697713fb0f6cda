"""Commands that find circuits: `attribute`."""

import sys
from typing import Annotated, Any

import typer

from cna_core.cli.loading import contrast_set, load
from cna_core.cli.options import Device, DeviceMap, Dtype, Model, Out, PromptSource, Quantization, TrustRemoteCode
from cna_core.cli.terminal import is_first_process, working, write
from cna_core.errors import CnaError


def attribute(
    model: Model,
    positive: PromptSource = None,
    negative: PromptSource = None,
    fraction: Annotated[
        float | None, typer.Option(help="Share of all neurons in the circuit.  [default: 0.001]", show_default=False)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Number of neurons instead of a fraction.", show_default=False)
    ] = None,
    score: Annotated[str, typer.Option(help="Rank by delta or effect-size.")] = "delta",
    skip_layers: Annotated[int, typer.Option(help="First layers left out of the ranking.")] = 0,
    universal: Annotated[float, typer.Option(help="Leave out neurons that fire on this share of all prompts.")] = 0.8,
    no_universal: Annotated[bool, typer.Option("--no-universal", help="Keep universal neurons.")] = False,
    only_triggered: Annotated[
        bool,
        typer.Option(
            "--only-triggered", help="Use only positive prompts that are refused, negative ones that are not."
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = None,
) -> None:
    """Find a circuit: the neurons whose activation differs most between positive and negative prompts."""
    from cna_core.circuits.attribution import attribute as select
    from cna_core.circuits.capture import capture

    if fraction is not None and top_k is not None:
        raise CnaError("--fraction and --top-k exclude each other; give one of them.")
    contrast = contrast_set(positive, negative)
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        activations = capture(loaded, contrast, **watching)
        if only_triggered:
            activations = _without_others(loaded, contrast, activations, watching)
    circuit = select(
        activations,
        fraction=0.001 if fraction is None else fraction,
        top_k=top_k,
        score=score,  # type: ignore[arg-type]
        skip_layers=skip_layers,
        universal_threshold=None if no_universal else universal,
    )
    if is_first_process():
        sys.stderr.write(
            f"{len(circuit)} neurons, {100 * circuit.concentration(0.10):.0f} % of them in the final 10 % of layers.\n"
        )
        write(circuit.to_json(), out)


def _without_others(loaded: Any, contrast: Any, activations: Any, watching: dict[str, Any]) -> Any:
    import numpy as np

    from cna_core.evaluation.triggers import triggered

    did = triggered(loaded, contrast, **watching)
    sides = did[contrast.is_positive], did[~contrast.is_positive]
    sys.stderr.write(
        f"{sides[0].sum()} of {len(sides[0])} positive prompts are refused and {sides[1].sum()} of {len(sides[1])} "
        "negative ones answered; the others are left out.\n"
    )
    return activations.without(np.flatnonzero(~did))

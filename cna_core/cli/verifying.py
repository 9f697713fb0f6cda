"""The command that puts a claim to its checks: `verify`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cna_core.cli.loading import contrast_set, load, prompt_set
from cna_core.cli.options import Device, DeviceMap, Dtype, Out, PromptSource, Quantization, TrustRemoteCode
from cna_core.cli.terminal import working, write


def verify(
    circuit: Annotated[
        Path, typer.Argument(help="Circuit file that attribute wrote.", metavar="CIRCUIT", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option(help="The model, where the circuit's name for it is not enough.", show_default=False)
    ] = None,
    checks: Annotated[
        str | None, typer.Option(help="Only these checks, separated by commas.", show_default="all")
    ] = None,
    positive: PromptSource = None,
    negative: PromptSource = None,
    prompts: PromptSource = None,
    count: Annotated[int, typer.Option(min=2, help="Harmful prompts to measure on, at most.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=8, help="Tokens of the answers that are read whole.")] = 128,
    table: Annotated[bool, typer.Option("--table", help="A Markdown table instead of JSON.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = None,
) -> None:
    """Put a circuit to the checks that must stand beside the claim that its neurons act on refusal."""
    from cna_core.circuits.circuit import Circuit
    from cna_core.evaluation.checks.contract import CheckSettings
    from cna_core.evaluation.checks.registry import checks_named
    from cna_core.evaluation.verify import Verification, markdown_rows
    from cna_core.evaluation.verify import verify as verified

    keys = tuple(checks.split(",")) if checks else None
    checks_named(keys)  # before anything is loaded
    chosen, contrast = Circuit.load(circuit), contrast_set(positive, negative)
    harmful = prompt_set(prompts, "evaluation-harmful")
    settings = CheckSettings(prompts=count, max_new_tokens=max_new_tokens)

    def as_text(found: Verification) -> str:
        return "\n".join(markdown_rows(found)) if table else found.to_json().rstrip()

    def keep(found: Verification) -> None:
        if out is not None:  # a run that is stopped leaves what it found
            write(as_text(found), out)

    with working() as watching:
        name = model or chosen.model.name
        loaded = load(name, device, dtype, quantization, device_map, trust_remote_code, **watching)
        found = verified(
            loaded,
            chosen,
            contrast=contrast,
            harmful=harmful,
            settings=settings,
            checks=keys,
            partial=keep,
            **watching,
        )
    for row in found.rows:
        sys.stderr.write(f"{row.check}: {row.verdict}\n")
    sys.stderr.write(f"These may be called {found.claim}.\n")
    write(as_text(found), out)

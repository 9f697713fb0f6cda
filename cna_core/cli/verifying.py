"""The command that checks a circuit's claim: `verify`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cna_core.cli.loading import contrast_set, load, prompt_set
from cna_core.cli.options import Device, DeviceMap, Dtype, Out, PromptSource, Quantization, Transfer, TrustRemoteCode
from cna_core.cli.terminal import working, write


def verify(
    circuit: Annotated[
        Path, typer.Argument(help="Circuit file written by attribute.", metavar="CIRCUIT", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option(help="The model, if the name in the circuit file is not enough.", show_default=False)
    ] = None,
    transfer: Transfer = False,
    checks: Annotated[str | None, typer.Option(help="Checks to run, separated by commas.", show_default="all")] = None,
    positive: PromptSource = None,
    negative: PromptSource = None,
    prompts: PromptSource = None,
    count: Annotated[int, typer.Option(min=2, help="Maximum number of harmful prompts.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=8, help="Maximum length of complete answers.")] = 128,
    table: Annotated[bool, typer.Option("--table", help="Print a Markdown table instead of JSON.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = None,
) -> None:
    """Run the checks that support or refute the claim that a circuit's neurons act on refusal."""
    from cna_core.circuits.circuit import Circuit
    from cna_core.evaluation.checks.contract import CheckSettings
    from cna_core.evaluation.checks.registry import checks_named
    from cna_core.evaluation.verify import Verification, markdown_rows
    from cna_core.evaluation.verify import verify as verified

    keys = tuple(checks.split(",")) if checks else None
    checks_named(keys)  # report unknown checks before anything is loaded
    chosen, contrast = Circuit.load(circuit), contrast_set(positive, negative)
    harmful = prompt_set(prompts, "evaluation-harmful")
    settings = CheckSettings(prompts=count, max_new_tokens=max_new_tokens)

    def as_text(found: Verification) -> str:
        return "\n".join(markdown_rows(found)) if table else found.to_json().rstrip()

    def keep(found: Verification) -> None:
        if out is not None:  # so that a stopped run leaves its results so far
            write(as_text(found), out)

    with working() as watching:
        name = model or chosen.model.name
        loaded = load(name, device, dtype, quantization, device_map, trust_remote_code, **watching)
        if transfer:
            chosen = chosen.transferred_to(loaded.identity)
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
    sys.stderr.write(f"The checks support calling these neurons {found.claim}.\n")
    write(as_text(found), out)

"""Commands that let a model answer: `generate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cna_core.cli.loading import load
from cna_core.cli.options import Device, DeviceMap, Dtype, Model, Quantization, TrustRemoteCode
from cna_core.cli.terminal import working, write
from cna_core.progress import Stage, tell


def generate(
    model: Model,
    circuit: Annotated[Path, typer.Option(help="Circuit file that attribute wrote.")],
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    strength: Annotated[
        list[float] | None,
        typer.Option(
            help="0 baseline, 1 ablated, 2 inverted; give it several times.  [default: 0, 1]", show_default=False
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", show_default=False)] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Answer one prompt at several strengths from one batched decode."""
    from cna_core.circuits.circuit import Circuit
    from cna_core.decoding.lanes import Lane
    from cna_core.decoding.lanes import generate as decode
    from cna_core.prompts.chat_format import as_messages

    strengths = strength or [0.0, 1.0]
    chosen = Circuit.load(circuit)
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        chosen.check_model(loaded.identity)
        lanes = [Lane(as_messages(prompt, system), strength=value) for value in strengths]
        texts = ["" for _ in lanes]
        steps = decode(
            loaded,
            lanes,
            chosen,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=watching["stop"],
        )
        for number, step in enumerate(steps):
            texts[step.lane] += step.text
            written = min(max_new_tokens, number // len(lanes) + 1)
            tell(watching["progress"], Stage.WRITING_ANSWERS, written, max_new_tokens, "tokens")
    if as_json:
        answers = [
            {"strength": value, "multiplier": 1 - value, "text": text}
            for value, text in zip(strengths, texts, strict=True)
        ]
        write(
            json.dumps(
                {"model": loaded.identity.model_dump(), "prompt": prompt, "answers": answers}, ensure_ascii=False
            ),
            None,
        )
        return
    for value, text in zip(strengths, texts, strict=True):
        write(f"--- strength {value:g} (multiplier {1 - value:g})\n{text.strip()}", None)

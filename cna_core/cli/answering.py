"""The command that generates answers: `generate`."""

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from cna_core.cli.loading import contrast_set, load
from cna_core.cli.options import (
    Device,
    DeviceMap,
    Dtype,
    Model,
    PromptSource,
    Quantization,
    Thinking,
    Transfer,
    TrustRemoteCode,
)
from cna_core.cli.terminal import working, write
from cna_core.errors import CnaError
from cna_core.progress import Stage, tell


def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="The prompt.")],
    circuit: Annotated[
        Path | None,
        typer.Option(help="Circuit file written by attribute; needed for methods on neurons.", show_default=False),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(help="0 baseline, 1 ablated, 2 inverted. Can be repeated.  [default: 0, 1]", show_default=False),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Steering method; see below.  [default: scale]", show_default=False)
    ] = None,
    positive: PromptSource = None,
    negative: PromptSource = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", show_default=False)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum answer length.  [default: 200]", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 decodes greedily.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: int = 0,
    thinking: Thinking = None,
    steer: Annotated[
        str | None,
        typer.Option(
            help="Where steering acts in models that think: both, thought or answer.  [default: both]",
            show_default=False,
        ),
    ] = None,
    transfer: Transfer = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Answer one prompt at several strengths, in one batched decode.

    --positive and --negative are the discovery prompts, for methods that are fitted on prompts.
    """
    from cna_core.circuits.circuit import Circuit
    from cna_core.decoding.lanes import LONGEST_ANSWER, Lane
    from cna_core.decoding.lanes import generate as decode
    from cna_core.evaluation.fitting import fit
    from cna_core.interventions import registry
    from cna_core.prompts.chat_format import as_messages, settled_thinking

    where = _steered_part(steer)
    strengths = strength or [0.0, 1.0]
    wanted = registry.method(method or registry.DEFAULT_METHOD)
    chosen = Circuit.load(circuit) if circuit else None
    longest = max_new_tokens or LONGEST_ANSWER
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        if transfer and chosen is not None:
            chosen = chosen.transferred_to(loaded.identity)
        fitted = fit(loaded, wanted.key, chosen, contrast_set(positive, negative), **watching)
        thinks = settled_thinking(loaded, thinking)
        if where != "both" and not thinks:
            raise CnaError(f"--steer {where} needs a model that thinks before it answers, and --thinking.")
        messages = as_messages(prompt, system)
        lanes = [Lane(messages, value, fitted, thinking=thinking, steers=where) for value in strengths]
        texts, thoughts = ["" for _ in lanes], ["" for _ in lanes]
        unfinished = [False for _ in lanes]
        sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
        steps = decode(loaded, lanes, chosen, max_new_tokens=longest, stop=watching["stop"], **sampling)
        for number, step in enumerate(steps):
            texts[step.lane] += step.text
            thoughts[step.lane] += step.thought
            unfinished[step.lane] = step.in_thought
            written = min(longest, number // len(lanes) + 1)
            tell(watching["progress"], Stage.WRITING_ANSWERS, written, longest, "tokens")
    if as_json:
        answers = [
            {"strength": value, "multiplier": 1 - value, "text": text}
            | ({"thought": thought, "unfinished": still} if thinks else {})
            for value, text, thought, still in zip(strengths, texts, thoughts, unfinished, strict=True)
        ]
        about: dict[str, Any] = {
            "model": loaded.identity.model_dump(),
            "method": wanted.key,
            "prompt": prompt,
            "answers": answers,
        }
        if thinks:
            about |= {"thinking": True, "steers": where}
        write(json.dumps(about, ensure_ascii=False), None)
        return
    for value, text, thought, still in zip(strengths, texts, thoughts, unfinished, strict=True):
        shown = f"[thought]\n{thought.strip()}\n[answer]\n" if thought else ""
        ending = NO_ANSWER if still else text.strip()
        write(f"--- strength {value:g} ({wanted.label})\n{shown}{ending}", None)


NO_ANSWER = "(no answer: the thought reached the maximum length)"


def _steered_part(wanted: str | None) -> Any:
    """The part in which steering acts, from the option's value."""
    from cna_core.decoding.lanes import SteeredPart

    parts = get_args(SteeredPart)
    if wanted is not None and wanted not in parts:
        raise CnaError(f"--steer must be one of {', '.join(parts)}, not {wanted!r}.")
    return wanted or parts[0]

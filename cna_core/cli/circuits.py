"""Commands that find circuits and explain refusals: `attribute`, `explain`."""

import contextlib
import json
import sys
from typing import Annotated, Any

import typer

from cna_core.cli.loading import contrast_set, load
from cna_core.cli.options import Device, DeviceMap, Dtype, Model, Out, PromptSource, Quantization, TrustRemoteCode
from cna_core.cli.terminal import is_first_process, working, write
from cna_core.errors import CircuitError, CnaError


def attribute(
    model: Model,
    positive: PromptSource = None,
    negative: PromptSource = None,
    fraction: Annotated[
        float | None,
        typer.Option(help="Circuit size, as a share of all neurons.  [default: 0.001]", show_default=False),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Circuit size, as a number of neurons.", show_default=False)] = None,
    score: Annotated[str, typer.Option(help="Rank by delta, effect-size or attribution-patching.")] = "delta",
    skip_layers: Annotated[int, typer.Option(help="Number of first layers to leave out.")] = 0,
    universal: Annotated[
        float,
        typer.Option(
            help="Leave out universal neurons, active on this share of all prompts. Ignored by attribution-patching."
        ),
    ] = 0.8,
    no_universal: Annotated[bool, typer.Option("--no-universal", help="Include universal neurons.")] = False,
    only_triggered: Annotated[
        bool,
        typer.Option(
            "--only-triggered",
            help="Use only positive prompts that the model refuses and negative prompts that it answers. "
            "attribution-patching always uses refused prompts only.",
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    layers: Annotated[
        str,
        typer.Option(help="For attribution-patching: first-two-thirds or all.", metavar="LAYERS"),
    ] = "first-two-thirds",
    out: Out = None,
) -> None:
    """Find a circuit: the neurons whose activations differ most between positive and negative prompts. With
    --score attribution-patching: the neurons whose ablation is estimated to lower refusals most."""
    if fraction is not None and top_k is not None:
        raise CnaError("Use either --fraction or --top-k, not both.")
    settings = _effect_settings(layers)
    from cna_core.circuits.attribution import attribute as select
    from cna_core.circuits.capture import capture

    contrast = contrast_set(positive, negative)
    universal_threshold, activations = (None if no_universal else universal), None
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        recorded = capture(loaded, contrast, **watching)
        if score == "attribution-patching":
            universal_threshold, activations = None, recorded
            recorded = _effects(loaded, contrast, settings, watching)
        elif only_triggered:
            recorded = _without_others(loaded, contrast, recorded, watching)
    circuit = select(
        recorded,
        fraction=0.001 if fraction is None else fraction,
        top_k=top_k,
        score=score,  # type: ignore[arg-type]
        skip_layers=skip_layers,
        universal_threshold=universal_threshold,
        activations=activations,
    )
    if is_first_process():
        sys.stderr.write(
            f"{len(circuit)} neurons, {100 * circuit.concentration(0.10):.0f} % of them in the final 10 % of layers\n"
        )
        write(circuit.to_json(), out)


def explain(
    model: Model,
    prompt: Annotated[str, typer.Option(help="The prompt.")],
    system: Annotated[str | None, typer.Option(help="System prompt.", show_default=False)] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of strongest neurons to list in each direction.")] = 20,
    layers: Annotated[
        str, typer.Option(help="Layers to measure: first-two-thirds or all.", metavar="LAYERS")
    ] = "first-two-thirds",
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = None,
) -> None:
    """List the neurons that push one prompt towards refusal or away from it, with the tokens they promote, as JSON."""
    settings = _effect_settings(layers)
    from cna_core.circuits.neurons import output_tokens
    from cna_core.evaluation.effects import explain as explained
    from cna_core.prompts.chat_format import as_messages

    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        why = explained(loaded, as_messages(prompt, system), settings=settings, **watching)
    content = why.to_json_value(top)
    for neuron in content["towards_refusal"] + content["against_refusal"]:
        with contextlib.suppress(CircuitError):  # routed experts have no single matrix to read the tokens from
            neuron["writes"] = [text for text, _ in output_tokens(loaded, neuron["layer"], neuron["neuron"], 5).up]
    write(json.dumps(content, ensure_ascii=False), out)


def _effect_settings(layers: str) -> Any:
    from cna_core.circuits.circuit_file import EffectSettings

    if layers not in ("first-two-thirds", "all"):
        raise CnaError(f"--layers must be first-two-thirds or all, not {layers!r}.")
    return EffectSettings(layers=layers)  # type: ignore[arg-type]


def _effects(loaded: Any, contrast: Any, settings: Any, watching: dict[str, Any]) -> Any:
    from cna_core.evaluation.effects import measure_effects

    effects = measure_effects(loaded, contrast, settings=settings, **watching)
    if is_first_process():
        sys.stderr.write(
            f"Measured {len(effects.positive)} of {len(contrast.positive)} positive prompts: those that are refused.\n"
        )
    return effects


def _without_others(loaded: Any, contrast: Any, activations: Any, watching: dict[str, Any]) -> Any:
    import numpy as np

    from cna_core.evaluation.triggers import triggered

    did = triggered(loaded, contrast, **watching)
    sides = did[contrast.is_positive], did[~contrast.is_positive]
    sys.stderr.write(
        f"Used {sides[0].sum()} of {len(sides[0])} positive prompts, which are refused, and {sides[1].sum()} of "
        f"{len(sides[1])} negative prompts, which are answered.\n"
    )
    return activations.without(np.flatnonzero(~did))

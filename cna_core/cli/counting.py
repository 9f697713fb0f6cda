"""The command that counts how few neurons carry refusal: `how-few`."""

import sys
from typing import Annotated, Any

import typer

from cna_core.cli.loading import contrast_set, load, prompt_set
from cna_core.cli.options import Device, DeviceMap, Dtype, Model, Out, PromptSource, Quantization, TrustRemoteCode
from cna_core.cli.terminal import is_first_process, working, write


def how_few(
    model: Model,
    positive: PromptSource = None,
    negative: PromptSource = None,
    prompts: PromptSource = None,
    benign: PromptSource = None,
    count: Annotated[int, typer.Option(min=2, help="Most harmful prompts to measure on.")] = 64,
    benign_count: Annotated[int, typer.Option(min=1, help="Most benign prompts for the KL divergence.")] = 24,
    largest: Annotated[int, typer.Option(min=1, help="Most neurons to ablate; the sizes are powers of 2.")] = 1024,
    draws: Annotated[int, typer.Option(min=1, help="Random circuits of each kind.")] = 3,
    table: Annotated[bool, typer.Option("--table", help="A Markdown table instead of JSON.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = None,
) -> None:
    """Measure how refusal falls with the number of ablated neurons: by effect, by |δ|, and for random neurons.

    No answers are generated: the chance of a refusal is computed from the first token. A stopped run resumes."""
    from cna_core.evaluation.how_few import how_few as measured
    from cna_core.evaluation.size_curves import HowFewSettings

    contrast = contrast_set(positive, negative)
    harmful, harmless = prompt_set(prompts, "evaluation-harmful"), prompt_set(benign, "evaluation-benign")
    settings = HowFewSettings(prompts=count, benign=benign_count, largest=largest, draws=draws)
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        found = measured(loaded, contrast, harmful=harmful, benign=harmless, settings=settings, **watching)
    if not is_first_process():
        return
    for line in (*found.notes, *_in_words(found)):
        sys.stderr.write(f"{line}\n")
    write("\n".join(_markdown(found)) if table else found.to_json().rstrip(), out)


def _in_words(found: Any) -> list[str]:
    """One sentence for each ranking of neurons."""
    from cna_core.evaluation.size_curves import halving_in_words

    lines = [f"Without ablation: refusal chance {found.baseline_estimate.value:.2f} on {len(found.baseline)} prompts."]
    for curve in found.curves:
        lines.append(f"{curve.title}: neurons that halve it: {halving_in_words(found.halving(curve))}.")
    return lines


def _markdown(found: Any) -> list[str]:
    """The lines of a Markdown table, one for each ranking of neurons."""
    from cna_core.evaluation.size_curves import halving_in_words

    sizes = found.curves[0].sizes[::2]
    lines = [
        f"| neurons chosen by | halve refusal | {' | '.join(f'{size:,}' for size in sizes)} | KL at {sizes[-1]:,} |",
        f"| {' | '.join(['---'] * (len(sizes) + 3))} |",
    ]
    for curve in found.curves:
        chances = dict(zip(curve.sizes, curve.band[:, 0], strict=True))
        divergences = dict(zip(curve.sizes, curve.divergence, strict=True))
        cells = [f"{100 * chances[size]:.0f} %" if size in chances else "" for size in sizes]
        kl = f"{divergences[sizes[-1]]:.2f}" if sizes[-1] in divergences else ""
        lines.append(f"| {curve.title} | {halving_in_words(found.halving(curve))} | {' | '.join(cells)} | {kl} |")
    return lines

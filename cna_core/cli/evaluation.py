"""Commands that measure: `evaluate`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cna_core.cli.loading import contrast_set, load, prompt_set
from cna_core.cli.options import (
    Device,
    DeviceMap,
    Dtype,
    Model,
    Out,
    PromptSource,
    Quantization,
    TrustRemoteCode,
    numbers,
)
from cna_core.cli.terminal import is_first_process, working, write
from cna_core.errors import CnaError

if TYPE_CHECKING:
    from cna_core.evaluation.knowledge import Question


def evaluate(
    model: Model,
    circuit: Annotated[Path, typer.Option(help="Circuit file that attribute wrote.")],
    strengths: Annotated[
        str | None,
        typer.Option(
            help="Strengths, separated by commas; 0 is always measured.  [default: 0,0.5,1]", show_default=False
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Circuit sizes as shares of all neurons, separated by commas, also above the circuit's.  "
            "[default: the circuit's own]",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            help="The positive prompts that the circuit was found with, where they were not the built-in ones: CAA's "
            "vectors and larger sizes come from them. Whether attribute took all prompts or --only-triggered ones is "
            "recognised by itself.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="Likewise the negative ones.", show_default=False)] = None,
    prompts: PromptSource = None,
    benign: PromptSource = None,
    borderline: Annotated[
        str | None,
        typer.Option(
            help="Prompts that only look unsafe: a file, a public set like public:xstest-safe, or none.",
            show_default="built-in",
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="What is done, separated by commas.  [default: scale,caa]", show_default=False)
    ] = None,
    controls: Annotated[str, typer.Option(help="random: also measure each method's random twin; or none.")] = "random",
    knowledge: Annotated[
        str | None,
        typer.Option(
            help="Also measure knowledge: built-in, public:mmlu, or a file or folder of questions.",
            show_default=False,
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(min=1, help="Ask at most so many of them, evenly spread.  [default: all]", show_default=False),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    seed: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier start of this run measured.")] = False,
    working_point: Annotated[
        bool,
        typer.Option(
            "--working-point",
            help="Instead of a run: search --fractions × --strengths (or a grid of its own) for the gentlest setting "
            "(least KL on benign prompts) that at least halves refusal, and print it as JSON.",
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Measure refusal and its costs over strengths, with controls; a stopped run goes on where it was."""
    from cna_core.circuits.circuit import Circuit
    from cna_core.evaluation.sweep import evaluate as sweep
    from cna_core.evaluation.triggers import activations_of
    from cna_core.interventions.registry import method

    chosen = Circuit.load(circuit)
    sizes = numbers(fractions, "--fractions") if fractions else None
    steps = numbers(strengths, "--strengths") if strengths else None
    asked_of = _questions(knowledge, questions) if knowledge else ()
    chosen_methods, twins = _methods(methods, controls)
    asked: dict[str, Any] = {
        "prompts": prompt_set(prompts, "evaluation-harmful"),
        "benign": prompt_set(benign, "evaluation-benign"),
    }
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        chosen.check_model(loaded.identity)
        activations = None
        fitted = any(not method(key).uses_circuit for key in chosen_methods)
        if sizes or fitted or working_point or positive or negative:
            activations = activations_of(loaded, chosen, contrast_set(positive, negative), **watching)
        if activations is None and (positive or negative):
            raise CnaError("The circuit was not found with these prompts; name those that attribute was given.")
        if working_point:
            text = _searched(loaded, chosen, asked, sizes, steps, activations, watching)
        else:
            run = sweep(
                loaded,
                chosen,
                strengths=steps or (0, 0.5, 1),
                fractions=sizes,
                borderline=None if borderline == "none" else prompt_set(borderline, "borderline"),
                methods=chosen_methods,
                controls=twins,
                max_new_tokens=max_new_tokens,
                seed=seed,
                out=out,
                knowledge=asked_of,
                activations=activations,
                fresh=fresh,
                **asked,
                **watching,
            )
            text = run.to_json() if out is None else ""
    if text and is_first_process():
        write(text, out)


def _methods(methods: str | None, controls: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Methods, and those of them whose twins are measured; "random,caa" is the spelling of earlier versions."""
    from cna_core.evaluation.old_formats import methods_and_controls

    named = tuple(part.strip() for part in methods.split(",")) if methods else None
    asked = tuple(part.strip() for part in controls.split(","))
    simple: dict[tuple[str, ...], bool] = {("random",): True, ("none",): False}
    return methods_and_controls(named, simple.get(asked, asked))


def _searched(
    loaded: Any, circuit: Any, asked: Any, sizes: Any, strengths: Any, activations: Any, watching: dict[str, Any]
) -> str:
    """The working point as JSON; which sizes and strengths are searched by default is the library's business."""
    from cna_core.evaluation.dials import fraction_of
    from cna_core.evaluation.working_point import FRACTIONS, STRENGTHS, search_working_point

    own = fraction_of(circuit)
    possible = sorted({own, *(size for size in FRACTIONS if activations is not None or size < own)})
    point = search_working_point(
        loaded,
        circuit,
        fractions=sizes or possible,
        strengths=strengths or STRENGTHS,
        activations=activations,
        **asked,
        **watching,
    )
    if point is None:
        raise CnaError("No setting of this grid halves refusal; offer larger --fractions or --strengths.")
    return json.dumps(dataclasses.asdict(point))


def _questions(source: str, limit: int | None) -> "tuple[Question, ...]":
    from cna_core.evaluation import knowledge
    from cna_core.prompts.public import find_public
    from cna_core.prompts.public_catalog import PREFIX

    if source == "built-in":
        return knowledge.spread(knowledge.builtin_questions(), limit)
    source = f"{PREFIX}{knowledge.MMLU}" if source == "hub" else source
    if not source.startswith(PREFIX):
        return knowledge.spread(knowledge.read_questions(source), limit)
    with working() as watching:
        found = knowledge.public_questions(source, limit=limit, **watching)
    copy = find_public(source)
    sys.stderr.write(f"{copy.known.title} · {copy.credit}\n")
    return found

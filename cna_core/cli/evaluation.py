"""Commands that measure: `evaluate`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

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
from cna_core.cli.registered import MethodsCommand
from cna_core.cli.terminal import is_first_process, working, write
from cna_core.errors import CnaError


class EvaluateCommand(MethodsCommand):
    """`evaluate`, whose help ends with the methods, measures and defaults that there are just now."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write them; the library is imported here, so that other help need not wait for torch."""
        from cna_core.evaluation.measures.registry import measures
        from cna_core.evaluation.sweep_settings import SweepSettings

        super().format_epilog(ctx, formatter)
        with formatter.section("Measures"):
            formatter.write_dl([(one.key, one.description or one.title) for one in measures()])
        fields = SweepSettings.model_fields
        with formatter.section("Where an option is left out"):
            formatter.write_dl(
                [
                    ("strengths", ", ".join(f"{strength:g}" for strength in fields["strengths"].default)),
                    ("methods", ", ".join(fields["methods"].default)),
                    ("measures", ", ".join(one.key for one in measures() if one.by_default)),
                    ("max-new-tokens", f"{fields['max_new_tokens'].default}"),
                    ("seed", f"{fields['seed'].default}"),
                ]
            )


def evaluate(
    model: Model,
    circuit: Annotated[Path, typer.Option(help="Circuit file that attribute wrote.")],
    strengths: Annotated[
        str | None, typer.Option(help="Strengths, separated by commas; 0 is always measured.", show_default=False)
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="What is done, separated by commas; listed below.", show_default=False)
    ] = None,
    controls: Annotated[str, typer.Option(help="random: also measure each method's random twin; or none.")] = "random",
    measures: Annotated[
        str | None,
        typer.Option(help="What is measured, separated by commas; listed below.", show_default=False),
    ] = None,
    measure_setting: Annotated[
        list[str] | None,
        typer.Option(help="What a measure asks for, as MEASURE.NAME=VALUE; give it several times.", show_default=False),
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
            help="The positive prompts that the circuit was found with, where they were not the built-in ones: other "
            "methods are fitted, and larger sizes selected, with them. Whether attribute took all prompts or "
            "--only-triggered ones is recognised by itself.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="Likewise the negative ones.", show_default=False)] = None,
    prompts: PromptSource = None,
    benign: Annotated[
        str | None,
        typer.Option(help="Benign prompts: a file, a public set, or none.", show_default="built-in"),
    ] = None,
    borderline: Annotated[
        str | None,
        typer.Option(
            help="Prompts that only look unsafe: a file, a public set like public:xstest-safe, or none.",
            show_default="built-in",
        ),
    ] = None,
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
    problems: Annotated[
        str | None,
        typer.Option(
            help="Also measure word problems: built-in, public:gsm8k, or a .jsonl file. Answers take up to 256 tokens.",
            show_default=False,
        ),
    ] = None,
    problem_count: Annotated[
        int | None,
        typer.Option(min=1, help="Ask at most so many of them, evenly spread.  [default: 100]", show_default=False),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the random twins.", show_default=False)] = None,
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
    from cna_core.evaluation.sweep_settings import SweepSettings
    from cna_core.evaluation.triggers import activations_of
    from cna_core.interventions.registry import method

    chosen = Circuit.load(circuit)
    chosen_methods, twins = _methods(methods, controls)
    wanted = _given(
        strengths=numbers(strengths, "--strengths") if strengths else None,
        fractions=numbers(fractions, "--fractions") if fractions else None,
        measures=_keys(measures),
        measure_settings=_measure_settings(measure_setting or []),
        questions=questions,
        problem_count=problem_count,
        max_new_tokens=max_new_tokens,
        seed=seed,
        methods=chosen_methods,
        controls=twins,
    )
    wanted |= _prompt_sets(prompts=prompts, benign=benign, borderline=borderline)
    for name, source in (("knowledge", knowledge), ("problems", problems)):
        if source and source != NONE:
            wanted[name] = source
            _credit(source)
    SweepSettings(**wanted)  # bad input is told before a model is loaded
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        chosen.check_model(loaded.identity)
        activations = None
        fitted = any(not method(key).uses_circuit for key in chosen_methods)
        if "fractions" in wanted or fitted or working_point or positive or negative:
            activations = activations_of(loaded, chosen, contrast_set(positive, negative), **watching)
        if activations is None and (positive or negative):
            raise CnaError("The circuit was not found with these prompts; name those that attribute was given.")
        if working_point:
            text = _searched(loaded, chosen, wanted, activations, watching)
        else:
            run = sweep(loaded, chosen, out=out, activations=activations, fresh=fresh, **wanted, **watching)
            text = run.to_json() if out is None else ""
    if text and is_first_process():
        write(text, out)


NONE = "none"
"""Instead of prompts: nothing of that kind is measured."""


def _methods(methods: str | None, controls: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Methods, and those of them whose twins are measured; "random,caa" is the spelling of earlier versions."""
    from cna_core.evaluation.old_formats import methods_and_controls

    asked = _keys(controls) or ()
    simple: dict[tuple[str, ...], bool] = {("random",): True, (NONE,): False}
    return methods_and_controls(_keys(methods), simple.get(asked, asked))


def _keys(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def _measure_settings(given: list[str]) -> dict[str, dict[str, str]]:
    """Settings by measure, from "MEASURE.NAME=VALUE"."""
    settings: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        measure, dot, name = place.partition(".")
        if not (measure and dot and name and equals):
            raise CnaError(f"--measure-setting takes MEASURE.NAME=VALUE, not {text!r}.")
        settings.setdefault(measure, {})[name] = value
    return settings


def _given(**options: Any) -> dict[str, Any]:
    """What was given; for the rest the library's defaults hold."""
    return {name: value for name, value in options.items() if value is not None}


def _prompt_sets(**sources: str | None) -> dict[str, Any]:
    """The prompt sets that were named; "none" leaves a set out."""
    return {
        name: None if source == NONE else prompt_set(source, "")
        for name, source in sources.items()
        if source is not None
    }


def _credit(source: str) -> None:
    """Say under which license public questions are, as for public prompts."""
    from cna_core.evaluation.knowledge import MMLU
    from cna_core.prompts.public_catalog import PREFIX, public_set

    if source == "hub" or source.startswith(PREFIX):
        sys.stderr.write(f"{public_set(MMLU if source == 'hub' else source.removeprefix(PREFIX)).credit}\n")


def _searched(loaded: Any, circuit: Any, wanted: dict[str, Any], activations: Any, watching: dict[str, Any]) -> str:
    """The working point as JSON; which sizes and strengths are searched by default is the library's business."""
    from cna_core.evaluation.dials import fraction_of
    from cna_core.evaluation.working_point import FRACTIONS, STRENGTHS, search_working_point

    own = fraction_of(circuit)
    possible = sorted({own, *(size for size in FRACTIONS if activations is not None or size < own)})
    point = search_working_point(
        loaded,
        circuit,
        wanted.get("prompts"),
        wanted.get("benign"),
        fractions=wanted.get("fractions", possible),
        strengths=wanted.get("strengths", STRENGTHS),
        activations=activations,
        **watching,
    )
    if point is None:
        raise CnaError("No setting of this grid halves refusal; offer larger --fractions or --strengths.")
    return json.dumps(dataclasses.asdict(point))

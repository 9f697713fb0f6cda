"""The command that measures a circuit's effect: `evaluate`."""

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
    Thinking,
    Transfer,
    TrustRemoteCode,
    numbers,
)
from cna_core.cli.registered import MethodsCommand
from cna_core.cli.terminal import is_first_process, working, write
from cna_core.errors import CnaError


class EvaluateCommand(MethodsCommand):
    """The command class of `evaluate`, whose help ends with the registered methods and measures and the defaults."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write them. The library is imported here, so that other help texts do not wait for torch."""
        from cna_core.evaluation.measures.registry import measures
        from cna_core.evaluation.sweep_settings import SweepSettings

        super().format_epilog(ctx, formatter)
        with formatter.section("Measures"):
            formatter.write_dl([(one.key, one.description or one.title) for one in measures()])
        fields = SweepSettings.model_fields
        with formatter.section("Defaults"):
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
    circuit: Annotated[
        list[Path],
        typer.Option(
            help="Circuit file written by attribute. Repeat it to measure several circuits in one run; sizes and other "
            "methods then belong to the first."
        ),
    ],
    strengths: Annotated[
        str | None, typer.Option(help="Strengths, separated by commas. 0 is always measured.", show_default=False)
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods, separated by commas; listed below.", show_default=False)
    ] = None,
    controls: Annotated[str, typer.Option(help="random (each method's random twin) or none.")] = "random",
    measures: Annotated[
        str | None,
        typer.Option(help="Measures, separated by commas; listed below.", show_default=False),
    ] = None,
    measure_setting: Annotated[
        list[str] | None,
        typer.Option(help="Setting of a measure, as MEASURE.NAME=VALUE. Can be repeated.", show_default=False),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Circuit sizes as shares of all neurons, separated by commas. May be larger than the circuit.  "
            "[default: the circuit's size]",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            help="The positive prompts that the circuit was found with, if not the built-in ones. Used to fit other "
            "methods and to select larger circuits. --only-triggered is detected automatically.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="The negative prompts, likewise.", show_default=False)] = None,
    prompts: PromptSource = None,
    benign: Annotated[
        str | None,
        typer.Option(help="Benign prompts: a file, a public set, or none.", show_default="built-in"),
    ] = None,
    borderline: Annotated[
        str | None,
        typer.Option(
            help="Benign prompts that only look unsafe: a file, a public set such as public:xstest-safe, or none.",
            show_default="built-in",
        ),
    ] = None,
    knowledge: Annotated[
        str | None,
        typer.Option(
            help="Knowledge questions: built-in, public:mmlu, or a file or folder.",
            show_default=False,
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of questions, evenly spread.  [default: all]", show_default=False),
    ] = None,
    problems: Annotated[
        str | None,
        typer.Option(
            help="Word problems: built-in, public:gsm8k, or a .jsonl file. Answers take up to 256 tokens.",
            show_default=False,
        ),
    ] = None,
    problem_count: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of problems, evenly spread.  [default: 100]", show_default=False),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum answer length, in tokens. It is also judged at 32, 64, 128 and 256.",
            show_default=False,
        ),
    ] = None,
    thinking: Thinking = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Also ask a local refusal classifier: minos (NousResearch/Minos-v1, 1.6 GB, downloaded the first "
            "time), a Hub id, or a folder. Its agreement with the detector is printed.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the random twins.", show_default=False)] = None,
    transfer: Transfer = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    device_map: DeviceMap = None,
    trust_remote_code: TrustRemoteCode = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again instead of resuming a stopped run.")] = False,
    working_point: Annotated[
        bool,
        typer.Option(
            "--working-point",
            help="Instead of a run, search for the working point, and print it as JSON: the setting with the lowest KL "
            "on benign prompts that at least halves the refusal rate. Searches --fractions × --strengths.",
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Measure refusals and side effects at several strengths, with controls. A stopped run resumes."""
    from cna_core.circuits.circuit import Circuit
    from cna_core.evaluation.sweep_settings import SweepSettings
    from cna_core.evaluation.triggers import activations_of
    from cna_core.interventions.registry import method

    chosen, *others = map(Circuit.load, circuit)
    chosen_methods, twins = _methods(methods, controls)
    wanted = _given(
        strengths=numbers(strengths, "--strengths") if strengths else None,
        fractions=numbers(fractions, "--fractions") if fractions else None,
        measures=_keys(measures),
        measure_settings=_measure_settings(measure_setting or []),
        questions=questions,
        problem_count=problem_count,
        max_new_tokens=max_new_tokens,
        thinking=thinking,
        seed=seed,
        methods=chosen_methods,
        controls=twins,
    )
    if others:
        wanted["others"] = dict(zip(_other_names(circuit), others, strict=True))
    wanted |= _prompt_sets(prompts=prompts, benign=benign, borderline=borderline)
    for name, source in (("knowledge", knowledge), ("problems", problems)):
        if source and source != NONE:
            wanted[name] = source
            _credit(source)
    ordered = SweepSettings(**wanted)  # report bad input before a model is loaded
    if judge:
        ordered = _with_judge(judge, ordered)
    with working() as watching:
        loaded = load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        if transfer:
            chosen = chosen.transferred_to(loaded.identity)
        chosen.check_model(loaded.identity)
        activations = None
        fitted = any(not method(key).uses_circuit for key in chosen_methods)
        if "fractions" in wanted or fitted or working_point or positive or negative:
            activations = activations_of(loaded, chosen, contrast_set(positive, negative), **watching)
        if activations is None and (positive or negative):
            raise CnaError("The circuit was not found with these prompts: give the same prompts as to attribute.")
        if working_point:
            text = _searched(loaded, chosen, wanted, activations, watching)
        else:
            run = _measured(loaded, chosen, ordered, activations, fresh, watching)
            text = run.to_json()
    if text and is_first_process():
        write(text, out)


NONE = "none"
"""The option value for no prompts of a kind."""


def _other_names(files: list[Path]) -> list[str]:
    """The names of the circuits after the first in charts: their files' names, numbered if these are not unique."""
    stems = [file.stem for file in files]
    return [
        stem if stems.count(stem) == 1 else f"{stem} ({place})"
        for place, stem in enumerate(stems, start=1)
        if place > 1
    ]


def _methods(methods: str | None, controls: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods, and those whose random twins are measured. "random,caa" is the spelling of earlier versions."""
    from cna_core.evaluation.old_formats import methods_and_controls

    asked = _keys(controls) or ()
    simple: dict[tuple[str, ...], bool] = {("random",): True, (NONE,): False}
    return methods_and_controls(_keys(methods), simple.get(asked, asked))


WORTH_TIMING_TOKENS = 20_000
"""The number of tokens from which the command says how long the run takes before it starts."""


def _measured(loaded: Any, circuit: Any, wanted: Any, activations: Any, fresh: bool, watching: dict[str, Any]) -> Any:
    """The run; how long it will take is said first, and how a local judge agrees with the detector last."""
    from accelerate import PartialState

    from cna_core.evaluation.measures.local_judge_rate import agreement_in_words
    from cna_core.evaluation.pace import estimate
    from cna_core.evaluation.sweep import run_plan
    from cna_core.evaluation.sweep_plan import plan_sweep
    from cna_core.progress_words import duration_in_words

    plan = plan_sweep(loaded, circuit, wanted, activations, **watching)
    if PartialState().num_processes == 1 and plan.most_tokens >= WORTH_TIMING_TOKENS:
        seconds = estimate(loaded, plan, **watching)
        sys.stderr.write(f"{len(plan.settings)} settings; at most about {duration_in_words(seconds)}.\n")
    run = run_plan(loaded, plan, fresh=fresh, **watching)
    if is_first_process() and (words := agreement_in_words(run)):
        sys.stderr.write(f"{words}\n")
    return run


def _with_judge(judge: str, ordered: Any) -> Any:
    """The order with the local judge's measure in it, and the judge's name in that measure's settings."""
    from cna_core.evaluation.local_judge import MINOS
    from cna_core.evaluation.measures.local_judge_rate import LocallyJudgedRefusalRate

    key = LocallyJudgedRefusalRate.key
    measures = tuple(dict.fromkeys([*(one.key for one in ordered.measured), key]))
    settings = {**ordered.measure_settings, key: {"model": MINOS if judge == "minos" else judge}}
    return ordered.model_copy(update={"measures": measures, "measure_settings": settings})


def _keys(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def _measure_settings(given: list[str]) -> dict[str, dict[str, str]]:
    """Settings by measure, from "MEASURE.NAME=VALUE"."""
    settings: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        measure, dot, name = place.partition(".")
        if not (measure and dot and name and equals):
            raise CnaError(f"--measure-setting must be MEASURE.NAME=VALUE, not {text!r}.")
        settings.setdefault(measure, {})[name] = value
    return settings


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the library has defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def _prompt_sets(**sources: str | None) -> dict[str, Any]:
    """The prompt sets that were given; None for "none"."""
    return {
        name: None if source == NONE else prompt_set(source, "")
        for name, source in sources.items()
        if source is not None
    }


def _credit(source: str) -> None:
    """Print the license of public questions."""
    from cna_core.evaluation.knowledge import MMLU
    from cna_core.prompts.public_catalog import PREFIX, public_set

    if source == "hub" or source.startswith(PREFIX):
        sys.stderr.write(f"{public_set(MMLU if source == 'hub' else source.removeprefix(PREFIX)).credit}\n")


def _searched(loaded: Any, circuit: Any, wanted: dict[str, Any], activations: Any, watching: dict[str, Any]) -> str:
    """Search for the working point and return it as JSON."""
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
        raise CnaError("No setting of this grid halves the refusal rate: try larger --fractions or --strengths.")
    return json.dumps(dataclasses.asdict(point))

"""The command line: each command parses, calls the library, and prints. Nothing is computed here.

Results go to stdout or to `--out`, progress to stderr. Exit code 0: done; 2: bad input, said in one sentence on stderr;
130: stopped.
"""

import contextlib
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cna_core.errors import CnaError, StoppedError

app = typer.Typer(
    name="cna_core",
    help="Find the neurons behind a model's refusal (Contrastive Neuron Attribution) and turn them down, off, or up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[
    str, typer.Argument(help="Catalog id, Hub id, folder, or .gguf file.", metavar="MODEL", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, bfloat16, float32 or float16.")]
Quantization = Annotated[str | None, typer.Option(help="4bit or 8bit (needs bitsandbytes).", show_default=False)]
DeviceMap = Annotated[
    str | None, typer.Option(help='"auto" spreads the model over GPUs, memory and disk.', show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]
Out = Annotated[
    Path | None, typer.Option(help="File to write; without it the result goes to stdout.", show_default=False)
]
PromptFile = typer.Option(help=".txt (one a line), .csv or .jsonl; without it the built-in set.", show_default=False)


class Terminal:
    """Progress on one line of stderr, redrawn at most ten times a second; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self.started_at = self.drawn_at = 0.0
        self.stage = ""
        self.live = sys.stderr.isatty()

    def __call__(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        stage = words.split(" ", 1)[0]
        if stage != self.stage:
            self.stage, self.started_at = stage, now
        elif now - self.drawn_at < (0.1 if self.live else 5.0) and done != total:
            return
        self.drawn_at = now
        share = f" {100 * done // total:3d} %" if total else ""
        sys.stderr.write(f"\r\x1b[K{words}{share}" if self.live else f"{words}{share}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self.live and self.stage:
            sys.stderr.write("\r\x1b[K")


@contextlib.contextmanager
def working() -> Iterator[dict[str, Any]]:
    """Keyword arguments `progress` and `stop` for a long call; Ctrl-C sets `stop` and the work ends in good order."""
    terminal, stop = Terminal(), threading.Event()
    try:
        yield {"progress": terminal, "stop": stop}
    except KeyboardInterrupt:
        stop.set()
        raise StoppedError("Stopped, as asked; what was finished is kept.") from None
    finally:
        terminal.close()


def _load(
    model: str, device: str, dtype: str, quantization: str | None, device_map: str | None, trust: bool, **watching: Any
) -> Any:
    from cna_core.models.load import load_model

    return load_model(
        model,
        device=device,
        dtype=dtype,
        quantization=quantization,
        device_map=device_map,
        trust_remote_code=trust,
        **watching,
    )


def _write(text: str, out: Path | None) -> None:
    from cna_core.paths import written_beside

    if out is None:
        sys.stdout.write(text + "\n")
        return
    try:
        with written_beside(out) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CnaError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def _contrast(positive: Path | None, negative: Path | None) -> Any:
    from cna_core.prompts.sets import ContrastSet

    return ContrastSet(_prompt_set(positive, "harmful"), _prompt_set(negative, "benign"))


@app.command()
def models() -> None:
    """List the catalog: ids, sizes, and what is on this machine already."""
    from cna_core.models.catalog import catalog
    from cna_core.models.fetch import is_ready

    rows = [("id", "kind", "layers × neurons", "bf16 GiB", "4-bit GiB", "")]
    for entry in catalog().values():
        rows.append(
            (
                entry.id,
                entry.kind,
                f"{entry.layers} × {entry.neurons_per_layer}",
                f"{entry.memory_bfloat16_gib:.1f}",
                f"{entry.memory_4bit_gib:.1f}",
                "on this machine" if is_ready(entry.id) else "gated" if entry.gated else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


@app.command()
def fetch(model: Model) -> None:
    """Fetch a model, convert it where needed, and print the folder it is in."""
    from cna_core.models.fetch import fetch as fetch_model

    with working() as watching:
        folder = fetch_model(model, **watching)
    _write(str(folder), None)


@app.command()
def attribute(
    model: Model,
    positive: Annotated[Path | None, PromptFile] = None,
    negative: Annotated[Path | None, PromptFile] = None,
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
    contrast = _contrast(positive, negative)
    with working() as watching:
        loaded = _load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
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
    if _is_first_process():
        sys.stderr.write(
            f"{len(circuit)} neurons, {100 * circuit.concentration(0.10):.0f} % of them in the final 10 % of layers.\n"
        )
        _write(circuit.to_json(), out)


@app.command()
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
        loaded = _load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
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
            watching["progress"](min(max_new_tokens, number // len(lanes) + 1), max_new_tokens, "Writing")
    if as_json:
        answers = [
            {"strength": value, "multiplier": 1 - value, "text": text}
            for value, text in zip(strengths, texts, strict=True)
        ]
        _write(
            json.dumps(
                {"model": loaded.identity.model_dump(), "prompt": prompt, "answers": answers}, ensure_ascii=False
            ),
            None,
        )
        return
    for value, text in zip(strengths, texts, strict=True):
        _write(f"--- strength {value:g} (multiplier {1 - value:g})\n{text.strip()}", None)


@app.command()
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
        Path | None,
        typer.Option(
            help="The positive prompts that the circuit was found with, where they were not the built-in ones: CAA's "
            "vectors and larger sizes come from them. Whether attribute took all prompts or --only-triggered ones is "
            "recognised by itself.",
            show_default=False,
        ),
    ] = None,
    negative: Annotated[Path | None, typer.Option(help="Likewise the negative ones.", show_default=False)] = None,
    prompts: Annotated[Path | None, PromptFile] = None,
    benign: Annotated[Path | None, PromptFile] = None,
    borderline: Annotated[
        str | None, typer.Option(help="File with prompts that only look unsafe, or none.", show_default="built-in")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="What is done, separated by commas.  [default: scale,caa]", show_default=False)
    ] = None,
    controls: Annotated[str, typer.Option(help="random: also measure each method's random twin; or none.")] = "random",
    knowledge: Annotated[
        str | None,
        typer.Option(
            help="Also measure knowledge: built-in, hub (cais/mmlu), or a folder of MMLU's CSV files.",
            show_default=False,
        ),
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
    sizes = _numbers(fractions, "--fractions") if fractions else None
    steps = _numbers(strengths, "--strengths") if strengths else None
    questions = _questions(knowledge) if knowledge else ()
    chosen_methods, twins = _methods(methods, controls)
    asked = {"prompts": _prompt_set(prompts, "evaluation-harmful"), "benign": _prompt_set(benign, "evaluation-benign")}
    with working() as watching:
        loaded = _load(model, device, dtype, quantization, device_map, trust_remote_code, **watching)
        chosen.check_model(loaded.identity)
        activations = None
        if sizes or working_point or any(not method(key).uses_circuit for key in chosen_methods):
            activations = activations_of(loaded, chosen, _contrast(positive, negative), **watching)
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
                borderline=None if borderline == "none" else _prompt_set(borderline, "borderline"),
                methods=chosen_methods,
                controls=twins,
                max_new_tokens=max_new_tokens,
                seed=seed,
                out=out,
                knowledge=questions,
                activations=activations,
                fresh=fresh,
                **asked,
                **watching,
            )
            text = run.to_json() if out is None else ""
    if text and _is_first_process():
        _write(text, out)


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


def _questions(source: str) -> Any:
    from cna_core.evaluation import knowledge

    if source == "built-in":
        return knowledge.builtin_questions()
    return knowledge.hub_questions() if source == "hub" else knowledge.read_questions(source)


def _is_first_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _prompt_set(file: str | Path | None, builtin: str) -> Any:
    from cna_core.prompts.sets import PromptSet

    return PromptSet.from_file(file) if file else PromptSet.builtin(builtin)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise CnaError(f"{option} takes numbers separated by commas, like 0,0.5,1, not {text!r}.") from error


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Circuit or run file.", metavar="A.json", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one of the same kind.", metavar="B.json", show_default=False)],
) -> None:
    """Compare two circuits (shared neurons, layers) or two runs (refusal and its costs at equal settings)."""
    from cna_core.evaluation.compare import comparison

    _write(comparison(first, second), None)


@app.command()
def table(
    run: Annotated[Path, typer.Argument(help="Run file that evaluate wrote.", metavar="RUN.json", show_default=False)],
) -> None:
    """Print a run's figures as a Markdown table: a row for each control, circuit size and strength."""
    from cna_core.evaluation.runs import Run
    from cna_core.evaluation.tables import markdown_table

    _write(markdown_table(Run.load(run)), None)


@app.command()
def cache(
    trim: Annotated[
        float | None, typer.Option(help="Remove the oldest entries until this many GiB are left.", show_default=False)
    ] = None,
) -> None:
    """Show what is in the cache folder, and trim it."""
    from cna_core.paths import cache_entries, cache_folder, trim_cache

    if trim is not None:
        for entry in trim_cache(round(trim * 2**30)):
            sys.stdout.write(f"removed  {entry.path}\n")
    entries = cache_entries()
    for entry in entries:
        sys.stdout.write(f"{entry.size_bytes / 2**20:10.1f} MiB  {entry.path.relative_to(cache_folder())}\n")
    total = sum(entry.size_bytes for entry in entries)
    sys.stdout.write(f"{total / 2**20:10.1f} MiB  in {cache_folder()}\n")


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = app(standalone_mode=False)
    except CnaError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer") and hasattr(error, "exit_code"):
            error.show()  # type: ignore[attr-defined]
            sys.exit(error.exit_code)
        raise
    sys.exit(code or 0)

"""The sweep: measures refusal and its costs over strengths and circuit sizes, for the circuit and its controls.

A batch contains all settings of one or more prompts; the baseline is measured once and shared. Each batch is saved in
the journal before the next one starts. The plan of batches depends only on the settings, so a resumed run, or a run
with several processes, computes exactly the same batches.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.processes import processes_for
from cna_core.decoding.lanes import first_token_logits, generate
from cna_core.evaluation.batches import Batch
from cna_core.evaluation.dials import Dials, dials_for
from cna_core.evaluation.journal import Journal, Record
from cna_core.evaluation.measures.contract import Reading
from cna_core.evaluation.measures.lengths import lengths_below
from cna_core.evaluation.old_formats import methods_and_controls
from cna_core.evaluation.resume import inputs_of, plan_of_stored
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import BASELINE
from cna_core.evaluation.sweep_plan import SweepPlan, plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import PromptSet


def evaluate(
    model: LoadedModel,
    circuit: Circuit | Activations,
    prompts: PromptSet | None = None,
    strengths: Sequence[float] | None = None,
    *,
    methods: Sequence[str] | None = None,
    controls: bool | Sequence[str] = True,
    activations: Activations | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    partial: Callable[[Run], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    **wanted: Any,
) -> Run:
    """Measure refusal and its costs at every setting. An interrupted run resumes.

    Decoding is greedy. Under `accelerate launch` or `torchrun`, the processes divide the batches among themselves.

    Args:
        circuit: a circuit, or activations to select one from.
        prompts: harmful prompts; None: the built-in evaluation set.
        strengths, methods: the strengths, and the keys of the methods; None: the defaults of `SweepSettings`.
        controls: whether the random twin of each method is also measured. The names of earlier versions still work:
            "random" (the circuit's twin) and "caa".
        activations: the activations from which the circuit was selected; circuit sizes above its own need them.
        out: a file for the run as cna-run/2, in addition to the copy in the cache folder.
        fresh: delete the measurements of an earlier start of the same run.
        partial: called after each batch with the run so far.
        wanted: any other field of `SweepSettings` (sweep_settings.py), which defines all defaults: fractions,
            benign, borderline, knowledge, questions, problems, problem_count, measures, measure_settings,
            max_new_tokens, seed, rows_per_batch, contrast, others, name.

    Returns:
        The run, the same in every process.

    Raises:
        CircuitError: the circuit belongs to another model, or is smaller than a requested fraction.
        RunError: a setting is invalid, or the file cannot be written.
        StoppedError: `stop` was set; finished work is saved.

    Example:
        run = evaluate(model, circuit, strengths=[0, 0.5, 1], methods=("scale", "caa"))
        print(markdown_table(run))
    """
    chosen, twins = methods_and_controls(methods, controls)
    given = {"prompts": prompts, "strengths": strengths}
    wanted |= {name: value for name, value in given.items() if value is not None}
    settings = SweepSettings(**wanted, methods=chosen, controls=twins)
    plan = plan_sweep(model, circuit, settings, activations, progress=progress, stop=stop)
    run = run_plan(model, plan, fresh=fresh, partial=partial, progress=progress, stop=stop)
    if out is not None and processes_for(model.device).place == 0:
        run.save(out)
    return run


def run_plan(
    model: LoadedModel,
    plan: SweepPlan,
    *,
    fresh: bool = False,
    partial: Callable[[Run], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Run:
    """Measure the batches that are not finished; arguments and errors as for `evaluate`."""
    processes = processes_for(model.device)
    journal = Journal.start(plan.run, len(plan.batches), plan.identity)
    if processes.writes:
        if fresh:
            journal.clear()
        journal.keep_inputs(plan.circuits[max(plan.circuits)], inputs_of(plan))
    processes.gather(None)  # no process reads it before it is cleared
    whole = journal.finished_run()
    known_everywhere = all(processes.gather(whole is not None))
    if whole is not None and known_everywhere:
        return whole
    done = journal.read()
    # On one machine all processes see the same journal; on several, a process measures again what it lacks.
    todo = [batch for batch in processes.share(plan.batches) if batch.number not in done]
    if todo:
        settings = plan.run.settings
        watching: dict[str, Any] = {"progress": progress, "stop": stop}
        treatments = [setting.treatment for setting in plan.settings if not setting.is_baseline]
        dials = dials_for(model, plan.circuits, treatments, settings.seed, plan.contrast, plan.others, **watching)
        weights = {batch.number: _weight(batch, plan) for batch in plan.batches}
        total, finished = sum(weights.values()), sum(weights[number] for number in done if number in weights)
        for batch in todo:
            raise_if_stopped(stop)
            tell(progress, _stage(batch), finished, total, subject=batch.prompt_set)
            records = measured(model, plan, dials, batch, stop)
            journal.append(batch.number, records, processes.place)
            done[batch.number] = records
            finished = min(total, finished + weights[batch.number] * processes.count)
            if partial is not None:
                partial(plan.run_so_far(_all_records(done), finished=False))
        tell(progress, _stage(todo[-1]), total, total, subject=todo[-1].prompt_set)
    for others in processes.gather(done):
        done.update(others)
    about = journal.about()[0]  # the user may have renamed it; the time of its first start is kept
    named = {"name": about.name, "created": about.created, "notes": about.notes}
    run = plan.run_so_far(_all_records(done), finished=True).model_copy(update=named)
    if processes.writes:
        journal.finish(run)
    return run


def resume(
    model: LoadedModel,
    identity: str,
    *,
    partial: Callable[[Run], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Run:
    """Resume a stored run that was stopped or killed; `identity` is its identity in `stored_runs`.

    Raises:
        RunError: it cannot be resumed, because the model is another one or something it needs is missing.
        StoppedError: `stop` was set.
    """
    plan = plan_of_stored(model, identity, progress=progress, stop=stop)
    return run_plan(model, plan, partial=partial, progress=progress, stop=stop)


def measured(
    model: LoadedModel, plan: SweepPlan, dials: Dials, batch: Batch, stop: threading.Event | None = None
) -> list[Record]:
    """Run one batch through the model and collect the measures' observations."""
    conversations = plan.conversations[batch.prompt_set]
    if batch.reads == "answers":
        reading = _answers(model, plan, dials, batch, conversations, stop)
    else:
        reading = _first_tokens(model, plan, dials, batch, conversations, stop)
    observations: list[dict[str, dict[str, float]]] = [{} for _ in batch.cells]
    for measure in plan.measures:
        if (measure.reads, measure.prompt_set) == (batch.reads, batch.prompt_set):
            raise_if_stopped(stop)
            for noted, observation in zip(observations, measure.observe(model, reading), strict=True):
                noted[measure.key] = observation
    return [
        Record(batch.reads, batch.prompt_set, prompt, plan.settings[setting], noted, *_text(reading, place))
        for place, ((prompt, setting), noted) in enumerate(zip(batch.cells, observations, strict=True))
    ]


def _text(reading: Reading, place: int) -> tuple[str | None, str | None, bool]:
    """Answer and thought of one cell, and whether the thought did not end."""
    if not reading.texts:
        return None, None, False
    thought, unfinished = reading.thoughts[place], reading.unfinished[place]
    return reading.texts[place], thought if reading.thinking or thought or unfinished else None, unfinished


def _answers(
    model: LoadedModel,
    plan: SweepPlan,
    dials: Dials,
    batch: Batch,
    conversations: list[list[Message]],
    stop: threading.Event | None,
) -> Reading:
    thinking = plan.run.settings.thinking
    lanes = [dials.lane(conversations[prompt], plan.settings[setting], thinking) for prompt, setting in batch.cells]
    texts, thoughts = [""] * len(lanes), [""] * len(lanes)
    thought_tokens, unfinished = [0] * len(lanes), [False] * len(lanes)
    tokens: list[list[int]] = [[] for _ in lanes]
    longest = plan.answer_tokens(batch.prompt_set)
    texts_at: dict[int, dict[int, str]] = {length: {} for length in lengths_below(longest)}
    for step in generate(model, lanes, None, max_new_tokens=longest, prefixes=dials.prefixes, stop=stop):
        texts[step.lane] += step.text
        thoughts[step.lane] += step.thought
        thought_tokens[step.lane], unfinished[step.lane] = step.thought_tokens, step.in_thought
        if step.finish_reason != "stop":
            tokens[step.lane].append(step.token_id)
            if (length := len(tokens[step.lane]) - step.thought_tokens) in texts_at:
                texts_at[length][step.lane] = texts[step.lane]
    return Reading(
        prompts=tuple(prompt for prompt, _ in batch.cells),
        messages=tuple(lane.messages for lane in lanes),  # type: ignore[misc]
        texts=tuple(texts),
        token_ids=tuple(map(tuple, tokens)),
        texts_at={
            length: tuple(beginnings.get(lane, text) for lane, text in enumerate(texts))
            for length, beginnings in texts_at.items()
        },
        thinking=thinking,
        thoughts=tuple(thought.strip() for thought in thoughts),
        thought_tokens=tuple(thought_tokens),
        unfinished=tuple(unfinished),
    )


def _first_tokens(
    model: LoadedModel,
    plan: SweepPlan,
    dials: Dials,
    batch: Batch,
    conversations: list[list[Message]],
    stop: threading.Event | None,
) -> Reading:
    """The first-token logits of the batch, and of the baseline for each of its prompts, from the same forward pass."""
    prompts = batch.prompts
    lanes = [dials.lane(conversations[prompt], BASELINE) for prompt in prompts]
    lanes += [dials.lane(conversations[prompt], plan.settings[setting]) for prompt, setting in batch.cells]
    logits = first_token_logits(model, lanes, None, prefixes=dials.prefixes, stop=stop)
    return Reading(
        prompts=tuple(prompt for prompt, _ in batch.cells),
        messages=tuple(conversations[prompt] for prompt, _ in batch.cells),
        logits=logits[len(prompts) :],
        baseline_logits=logits[[prompts.index(prompt) for prompt, _ in batch.cells]],
    )


def _all_records(done: dict[int, list[Record]]) -> list[Record]:
    return [record for number in sorted(done) for record in done[number]]


def _weight(batch: Batch, plan: SweepPlan) -> int:
    """A rough estimate of the batch's duration, for progress: generated tokens cost most."""
    return len(batch.cells) * (20 + (plan.answer_tokens(batch.prompt_set) if batch.reads == "answers" else 0))


def _stage(batch: Batch) -> Stage:
    return Stage.SWEEP_ANSWERS if batch.reads == "answers" else Stage.SWEEP_FIRST_TOKENS

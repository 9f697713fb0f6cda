"""A run that goes on: its plan made again from what it left in the cache folder.

The settings are in the run itself; prompts for CAA, knowledge questions and the circuit lie beside it. Measures are
made again by name, so only those of this project can go on by themselves; for others, call `evaluate` again with the
same arguments. Measures nothing.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cna_core.errors import RunError
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.journal import Journal, run_identity
from cna_core.evaluation.judge import Judge, JudgedRefusalRate
from cna_core.evaluation.knowledge import Question
from cna_core.evaluation.measures import Knowledge, Measure, RefusalChance, default_measures
from cna_core.evaluation.points import answers_of, points_of
from cna_core.evaluation.runs import PromptsUsed, Run, RunSettings, SetName
from cna_core.evaluation.setting import settings_of
from cna_core.evaluation.sweep_plan import SweepPlan, plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.sets import ContrastSet, PromptSet

_NO_OPENINGS = RefusalOpenings(
    ModelIdentity(name="", revision="", layers=0, neurons_per_layer=0, dtype=""),
    "",
    np.empty(0, dtype=np.int64),
    np.empty(0),
    np.empty(0),
)


def inputs_of(plan: SweepPlan) -> dict[str, Any]:
    """What must be kept beside the settings and the circuit, as JSON."""
    contrast = plan.contrast
    sides = {"positive": contrast.positive.prompts, "negative": contrast.negative.prompts} if contrast else None
    return {"contrast": sides, "knowledge": [question.model_dump() for question in plan.knowledge]}


def plan_of_stored(
    model: LoadedModel, identity: str, *, progress: Report | None = None, stop: threading.Event | None = None
) -> SweepPlan:
    """The plan of a stored run, the same as when it was started.

    Raises:
        RunError: there is no such run, its model is another one, or something it needs is not there any more.
        StoppedError: `stop` was set.
    """
    journal = Journal(identity)
    about, _ = journal.about()
    circuit, inputs = journal.inputs()
    settings = about.settings
    questions = [Question.model_validate(question) for question in inputs["knowledge"]]
    contrast = None
    if inputs["contrast"]:
        contrast = ContrastSet(*(PromptSet(side, tuple(texts)) for side, texts in inputs["contrast"].items()))
    wanted = SweepSettings(
        prompts=_prompts(settings.prompts.get("harmful")) or PromptSet.builtin("evaluation-harmful"),
        benign=_prompts(settings.prompts.get("benign")),
        borderline=_prompts(settings.prompts.get("borderline")),
        strengths=settings.strengths,
        fractions=settings.fractions,
        methods=settings.methods,
        controls=settings.controls,
        measures=tuple(_measures(model, settings, questions, progress, stop)),
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
        knowledge=tuple(questions),
        contrast=contrast,
        rows_per_batch=settings.rows_per_batch,
        name=about.name,
    )
    plan = plan_sweep(model, circuit, wanted)
    if plan.identity != run_identity(about.model, about.circuit_sha256, settings):
        raise RunError(
            f"This run was started with {about.model.name} in {about.model.dtype}, and cannot go on with "
            f"{model.identity.name} in {model.identity.dtype}; load the same model, or start a new run."
        )
    return replace(plan, stored_as=identity)


def run_so_far(identity: str) -> Run:
    """A stored run with the points and answers that its journal has; asks no model.

    Raises:
        RunError: there is no such run.
    """
    journal = Journal(identity)
    whole = journal.finished_run()
    if whole is not None:
        return whole
    about, batches = journal.about()
    used = about.settings
    done = journal.read()
    records = [record for part in done.values() for record in part]
    settings = settings_of(used.strengths, used.fractions, used.methods, used.controls)
    measures = [measure for name in used.measures if (measure := _for_summing_up(name)) is not None]
    found = {"points": points_of(settings, used.fractions, measures, records), "answers": answers_of(settings, records)}
    return about.model_copy(update=found | {"finished": bool(batches) and len(done) >= batches})


def _for_summing_up(name: str) -> Measure | None:
    """A measure that can sum up what was observed; those that were plugged in are unknown here."""
    known: list[Measure] = [*default_measures(["harmful", "benign", "borderline"]), Knowledge(())]
    known.append(RefusalChance(_NO_OPENINGS))
    kinds: tuple[SetName, ...] = ("harmful", "benign", "borderline")
    known += [JudgedRefusalRate(Judge("http://", ""), kind) for kind in kinds]
    return next((measure for measure in known if measure.name == name), None)


def _prompts(used: PromptsUsed | None) -> PromptSet | None:
    return PromptSet(used.name, used.texts) if used else None


def _measures(
    model: LoadedModel,
    settings: RunSettings,
    questions: Sequence[Question],
    progress: Report | None,
    stop: threading.Event | None,
) -> list[Measure]:
    metered = "refusal_chance" in settings.measures
    openings = calibrate_openings(model, progress=progress, stop=stop) if metered else None
    known: dict[str, Measure] = {
        measure.name: measure for measure in default_measures(list(settings.prompts), questions, openings)
    }
    for name in settings.measures:
        if name.startswith("judged_"):
            asked = settings.measure_settings[name]
            known[name] = JudgedRefusalRate(Judge(asked["endpoint"], asked["model"]), _set_of(name))
    if missing := [name for name in settings.measures if name not in known]:
        raise RunError(f"The measure {missing[0]!r} was plugged in; call evaluate with it to go on with this run.")
    return [known[name] for name in settings.measures]


def _set_of(name: str) -> Any:
    return next((kind for kind in ("benign", "borderline") if kind in name), "harmful")

"""Resumes a run: makes its plan again from the data in the cache folder.

The run stores its settings; the prompts for fitting, the knowledge questions and the circuit are stored beside it.
Methods and measures are found by key, so plugins must be imported first. This module measures nothing.
"""

import json
import threading
from dataclasses import replace
from typing import Any

from cna_core.cached import DAMAGED
from cna_core.circuits.circuit import Circuit
from cna_core.errors import RunError
from cna_core.evaluation.journal import Journal, Record, run_identity
from cna_core.evaluation.knowledge import Question
from cna_core.evaluation.measures.registry import measures
from cna_core.evaluation.points import answers_of, points_of
from cna_core.evaluation.runs import PromptsUsed, Run, RunSettings
from cna_core.evaluation.setting import settings_of
from cna_core.evaluation.sweep_plan import SweepPlan, plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.evaluation.word_problems import WordProblem
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.sets import ContrastSet, PromptSet


def inputs_of(plan: SweepPlan) -> dict[str, Any]:
    """The inputs that are stored beside the settings and the circuit, as JSON."""
    contrast = plan.contrast
    sides = {"positive": contrast.positive.prompts, "negative": contrast.negative.prompts} if contrast else None
    return {
        "contrast": sides,
        "knowledge": [question.model_dump() for question in plan.knowledge],
        "problems": [problem.model_dump() for problem in plan.problems],
        "others": {name: json.loads(circuit.to_json()) for name, circuit in plan.others.items()},
    }


def plan_of_stored(
    model: LoadedModel, identity: str, *, progress: Report | None = None, stop: threading.Event | None = None
) -> SweepPlan:
    """The plan of a stored run, identical to the plan with which it was started.

    Raises:
        RunError: there is no such run, the model is another one, or something it needs is missing.
        StoppedError: `stop` was set.
    """
    journal = Journal(identity)
    about, _ = journal.about()
    circuit, inputs = journal.inputs()
    settings = about.settings
    try:
        questions = [Question.model_validate(question) for question in inputs["knowledge"]]
        problems = [WordProblem.model_validate(problem) for problem in inputs.get("problems", ())]
        others = {name: Circuit.from_json(json.dumps(text)) for name, text in inputs.get("others", {}).items()}
        contrast = None
        if inputs["contrast"]:
            contrast = ContrastSet(*(PromptSet(side, tuple(texts)) for side, texts in inputs["contrast"].items()))
    except DAMAGED as error:
        raise RunError("This run cannot be resumed, because its inputs are damaged; start a new run.") from error
    wanted = SweepSettings(
        prompts=_prompts(settings.prompts.get("harmful")) or PromptSet.builtin("evaluation-harmful"),
        benign=_prompts(settings.prompts.get("benign")),
        borderline=_prompts(settings.prompts.get("borderline")),
        strengths=settings.strengths,
        fractions=settings.fractions,
        methods=settings.methods,
        controls=settings.controls,
        measures=settings.measures,
        measure_settings=settings.measure_settings,
        max_new_tokens=settings.max_new_tokens,
        thinking=settings.thinking,
        seed=settings.seed,
        knowledge=tuple(questions),
        problems=tuple(problems),
        problem_count=None,
        contrast=contrast,
        rows_per_batch=settings.rows_per_batch,
        others=others,
        name=about.name,
    )
    plan = plan_sweep(model, circuit, wanted, progress=progress, stop=stop)
    if about.model != model.identity:
        raise RunError(
            f"This run was started with {about.model.name} in {about.model.dtype}, and cannot be resumed with "
            f"{model.identity.name} in {model.identity.dtype}; load the same model, or start a new run."
        )
    if plan.identity != run_identity(about.model, about.circuit_sha256, settings):
        if _but_for_detector(plan.run.settings) == _but_for_detector(settings):
            _judge_again(journal, plan)
            return replace(plan, stored_as=identity)
        ours, theirs = plan.run.settings.model_dump(), settings.model_dump()
        changed = [name for name in ours if ours[name] != theirs[name] and name != "circuit"]
        raise RunError(
            f"What this run measures has changed since it was started ({', '.join(changed) or 'the circuit'}); "
            "start a new run."
        )
    return replace(plan, stored_as=identity)


def run_so_far(identity: str) -> Run:
    """A stored run with the points and answers in its journal. Needs no model.

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
    settings = settings_of(used.strengths, used.fractions, used.methods, used.controls, used.others)
    known = {measure.key: measure for measure in measures()}
    taken = [known[key] for key in used.measures if key in known]  # unknown measures cannot be summarised
    found = {
        "points": points_of(settings, used.fractions, taken, records),
        "answers": answers_of(settings, taken, records),
    }
    return about.model_copy(update=found | {"finished": bool(batches) and len(done) >= batches})


def _but_for_detector(settings: RunSettings) -> RunSettings:
    """Settings that are equal for two runs that differ in nothing but the detector that judged their answers."""
    others = {
        measure: {name: value for name, value in own.items() if name != "detector"}
        for measure, own in settings.measure_settings.items()
    }
    kept = {measure: own for measure, own in others.items() if own}
    return settings.model_copy(update={"measure_settings": kept, "circuit": {}})


def _judge_again(journal: Journal, plan: SweepPlan) -> None:
    """Judge the answers of a stored run as they are judged now, so that verdicts of two detectors are not mixed."""
    taken = {measure.key: type(measure) for measure in plan.measures}

    def again(record: Record) -> Record:
        if record.text is None:
            return record
        noted = {
            key: taken[key].judged_again(observation, record.text) if key in taken else observation
            for key, observation in record.observations.items()
        }
        return replace(record, observations=noted)

    about, batches = journal.about()
    journal.change(about.model_copy(update={"settings": plan.run.settings}), batches, again)


def _prompts(used: PromptsUsed | None) -> PromptSet | None:
    return PromptSet(used.name, used.texts, used.categories) if used else None

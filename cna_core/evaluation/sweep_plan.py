"""The plan of a sweep, made before anything runs: circuits, settings, measures, prompts, batches.

It uses the model's tokenizer to count tokens. `sweep.py` executes the plan.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.batches import Batch, planned_batches
from cna_core.evaluation.dials import circuits_by_fraction
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.evaluation.journal import Record, now, run_identity
from cna_core.evaluation.knowledge import Question, question_messages, questions_from, spread
from cna_core.evaluation.measures.contract import Measure, Preparation, Reads
from cna_core.evaluation.measures.registry import ready_measures
from cna_core.evaluation.points import answers_of, points_of
from cna_core.evaluation.runs import PromptsUsed, Run, RunSettings, SetName, versions
from cna_core.evaluation.setting import Setting
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.evaluation.word_problems import WordProblem, problem_messages, problems_from
from cna_core.interventions.registry import method
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message, as_messages, encode, settled_thinking
from cna_core.prompts.sets import ContrastSet, PromptSet

_ORDER: tuple[tuple[Reads, SetName], ...] = (
    ("answers", "harmful"),
    ("first-token", "harmful"),
    ("first-token", "benign"),
    ("answers", "benign"),
    ("answers", "borderline"),
    ("first-token", "borderline"),
    ("first-token", "knowledge"),
    ("answers", "knowledge"),
    ("answers", "problems"),
    ("first-token", "problems"),
)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that is ready to start.

    Args:
        run: the run without results.
        circuits: the circuits by fraction.
        contrast: the prompts for fitting methods; None if no method needs them.
        settings: all settings, the baseline first.
        measures: the measures, ready to observe.
        conversations: the conversations of each prompt set.
        batches: the batches in their order.
        knowledge, problems: the questions and word problems.
        others: further circuits, by name.
        stored_as: the folder name that an earlier version gave the run; "": the name follows from the run's settings.
    """

    run: Run
    circuits: dict[float, Circuit]
    contrast: ContrastSet | None
    settings: tuple[Setting, ...]
    measures: tuple[Measure, ...]
    conversations: dict[SetName, list[list[Message]]]
    batches: tuple[Batch, ...]
    knowledge: tuple[Question, ...] = ()
    problems: tuple[WordProblem, ...] = ()
    others: Mapping[str, Circuit] = field(default_factory=dict)
    stored_as: str = ""

    @property
    def identity(self) -> str:
        """The name of the run's folder in the cache."""
        return self.stored_as or run_identity(self.run.model, self.run.circuit_sha256, self.run.settings)

    def answer_tokens(self, prompt_set: SetName) -> int:
        """The most tokens of answers to a set: the run's limit, or more if a measure needs more."""
        needed = [measure.answer_tokens for measure in self.measures if measure.prompt_set == prompt_set]
        return max((tokens for tokens in needed if tokens is not None), default=self.run.settings.max_new_tokens)

    @property
    def most_tokens(self) -> int:
        """The number of generated tokens if every answer reaches its limit."""
        return sum(
            len(batch.cells) * self.answer_tokens(batch.prompt_set)
            for batch in self.batches
            if batch.reads == "answers"
        )

    def run_so_far(self, records: Sequence[Record], finished: bool) -> Run:
        """The run with points and answers from these records."""
        fractions, kinds = self.run.settings.fractions, [type(measure) for measure in self.measures]
        return self.run.model_copy(
            update={
                "points": points_of(self.settings, fractions, kinds, records),
                "answers": answers_of(self.settings, kinds, records),
                "finished": finished,
            }
        )


def plan_sweep(
    model: LoadedModel,
    circuit: Circuit | Activations,
    wanted: SweepSettings,
    activations: Activations | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> SweepPlan:
    """Plan the batches of a sweep and prepare its measures. Arguments and errors as for `evaluate`."""
    if isinstance(circuit, Activations):
        activations = circuit
    circuits = circuits_by_fraction(circuit, wanted.fractions, activations)
    largest = circuits[max(circuits)]
    used = list(discovery_prompts(largest, activations, wanted.contrast))
    for other in wanted.others.values():
        used += discovery_prompts(other, None, wanted.contrast)
    for one in (largest, *wanted.others.values()):
        one.check_model(model.identity)
    sets, left_out = held_out(wanted.sets, dict.fromkeys(used))
    knowledge, problems = _questions(wanted, progress, stop), _problems(wanted, progress, stop)
    keys = wanted.measures or [measure.key for measure in wanted.measured]
    preparation = Preparation(model, knowledge, problems, progress=progress, stop=stop)
    taken = ready_measures(keys, preparation, wanted.measure_settings)
    thinking = settled_thinking(model, wanted.thinking)
    conversations: dict[SetName, list[list[Message]]] = {
        kind: [as_messages(prompt) for prompt in prompt_set] for kind, prompt_set in sets.items()
    }
    conversations |= {"knowledge": [question_messages(question) for question in knowledge]} if knowledge else {}
    conversations |= {"problems": [problem_messages(problem) for problem in problems]} if problems else {}
    contrast, notes = _contrast_for_fitting(largest, activations, wanted)
    settings = wanted.settings(tuple(circuits))
    details = RunSettings(
        strengths=tuple(sorted({setting.strength for setting in settings})),
        fractions=tuple(circuits),
        methods=wanted.methods,
        controls=wanted.controls,
        measures=tuple(measure.key for measure in taken),
        measure_settings={measure.key: measure.settings for measure in taken if measure.settings},
        prompts={kind: _described(prompt_set) for kind, prompt_set in sets.items()}
        | _described_questions(knowledge)
        | _described_problems(problems),
        max_new_tokens=wanted.max_new_tokens,
        thinking=thinking,
        seed=wanted.seed,
        rows_per_batch=wanted.rows_per_batch,
        others={name: other.sha256 for name, other in wanted.others.items()},
        circuit=largest.settings.model_dump() | {"prompts": largest.prompts.model_dump()},
        contrast_sha256=contrast.sha256 if contrast else None,
    )
    run = Run(
        name=wanted.name,
        created=now(),
        model=model.identity,
        circuit_sha256=largest.sha256,
        settings=details,
        versions=versions(),
        notes=_transfer_note(largest) + left_out + notes + _thinking_note(thinking, taken),
        finished=False,
    )
    work = _work(model, taken, conversations)
    batches = planned_batches(work, len(settings), wanted.rows_per_batch)
    return SweepPlan(
        run, circuits, contrast, settings, taken, conversations, batches, knowledge, problems, wanted.others
    )


def _transfer_note(circuit: Circuit) -> tuple[str, ...]:
    source = circuit.settings.transferred_from
    if source is None:
        return ()
    return (f"Transfer: the circuit was found on {source} and applied to {circuit.model.name}.",)


def _thinking_note(thinking: bool, measures: Sequence[Measure]) -> tuple[str, ...]:
    if not thinking:
        return ()
    first = [measure.column_title() for measure in measures if measure.reads == "first-token"]
    said = "The model thinks before it answers: only the answer after the thought is judged."
    return (said + (f" {', '.join(first)}: read from the first token, with thinking off." if first else ""),)


def _contrast_for_fitting(
    circuit: Circuit, activations: Activations | None, wanted: SweepSettings
) -> tuple[ContrastSet | None, tuple[str, ...]]:
    """The prompts for fitting methods without a circuit, and a note on them for the run."""
    fitted = [method(key).label for key in wanted.methods if method(key).uses_prompts]
    if not fitted:
        return None, ()
    contrast = wanted.contrast
    if contrast is None and activations is not None:
        contrast = ContrastSet(PromptSet("positive", activations.positive), PromptSet("negative", activations.negative))
    contrast = contrast or ContrastSet.builtin()
    if contrast.sha256 == circuit.prompts.sha256:
        return contrast, ()
    return contrast, (f"{', '.join(fitted)}: fitted with other prompts than those of the circuit.",)


def _questions(wanted: SweepSettings, progress: Report | None, stop: threading.Event | None) -> tuple[Question, ...]:
    if isinstance(wanted.knowledge, str):
        return questions_from(wanted.knowledge, wanted.questions, progress=progress, stop=stop)
    return spread(wanted.knowledge, wanted.questions)


def _problems(wanted: SweepSettings, progress: Report | None, stop: threading.Event | None) -> tuple[WordProblem, ...]:
    if isinstance(wanted.problems, str):
        return problems_from(wanted.problems, wanted.problem_count, progress=progress, stop=stop)
    return spread(wanted.problems, wanted.problem_count)


def _described(prompts: PromptSet) -> PromptsUsed:
    return PromptsUsed(
        name=prompts.name,
        count=len(prompts),
        sha256=prompts.sha256,
        texts=prompts.prompts,
        categories=prompts.categories,
    )


def _described_questions(questions: Sequence[Question]) -> dict[SetName, PromptsUsed]:
    if not questions:
        return {}
    digest = hashlib.sha256("\n".join(question.model_dump_json() for question in questions).encode()).hexdigest()
    subjects = len({question.subject for question in questions})
    return {"knowledge": PromptsUsed(name=f"{subjects} subjects", count=len(questions), sha256=digest)}


def _described_problems(problems: Sequence[WordProblem]) -> dict[SetName, PromptsUsed]:
    if not problems:
        return {}
    digest = hashlib.sha256("\n".join(problem.model_dump_json() for problem in problems).encode()).hexdigest()
    texts = tuple(problem.question for problem in problems)
    return {"problems": PromptsUsed(name="word problems", count=len(problems), sha256=digest, texts=texts)}


def _work(
    model: LoadedModel, measures: Sequence[Measure], conversations: dict[SetName, list[list[Message]]]
) -> list[tuple[Reads, SetName, list[int]]]:
    """The kinds of reading needed on each set, with the lengths of its prompts in tokens."""
    needed = {(measure.reads, measure.prompt_set) for measure in measures}
    return [
        (reads, kind, [len(encode(model, messages)) for messages in conversations[kind]])
        for reads, kind in _ORDER
        if (reads, kind) in needed
    ]

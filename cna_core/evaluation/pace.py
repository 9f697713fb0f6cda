"""Predicts how long a sweep takes, from this machine's speed, which is measured on one short batch.

This module knows batches and tokens, and measures nothing about refusals.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.dials import PREFIX_BYTES
from cna_core.evaluation.journal import Journal
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.runs import SetName
from cna_core.evaluation.sweep_plan import SweepPlan
from cna_core.evaluation.sweep_settings import ROWS_PER_BATCH, SweepSettings
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, tell
from cna_core.prompts.chat_format import Message, as_messages, encode
from cna_core.prompts.sets import PromptSet

TRIAL_TOKENS = 4
QUESTION_FACTOR = 2.0
"""The tokens of a multiple-choice question, compared with a request."""


@dataclass(frozen=True)
class Pace:
    """The speed of prefill and decoding on this machine.

    Args:
        reading_seconds: the time of one token of one row in a prefill.
        step_seconds: the time of one decoding step of a full batch.
        rows: the rows of that batch.
        prompt_tokens: the tokens of a typical request, including the chat template.
    """

    reading_seconds: float
    step_seconds: float
    rows: int
    prompt_tokens: float

    def seconds(
        self,
        settings: int,
        written: int,
        read: int,
        questions: int,
        max_new_tokens: int,
        read_again: int = 0,
    ) -> float:
        """The seconds of a sweep.

        Args:
            settings: the number of settings, including the baseline.
            written, read, questions: the numbers of prompts with generated answers, of prompts with a first token only,
                and of questions.
            read_again: the number of prompts whose answers the unsteered model processes again.
        """
        tokens = self.prompt_tokens * (written + read + QUESTION_FACTOR * questions)
        tokens += (self.prompt_tokens + max_new_tokens) * read_again
        steps = max_new_tokens * written * settings / self.rows
        return self.reading_seconds * tokens * settings + self.step_seconds * steps

    def seconds_of(self, wanted: SweepSettings, settings: int) -> float:
        """The seconds of a sweep with these sweep settings and this number of settings."""
        kinds = wanted.measured
        lengths = {kind: len(prompts) for kind, prompts in wanted.sets.items()}
        known = 0 if isinstance(wanted.knowledge, str) else len(wanted.knowledge)
        asked = (wanted.questions or known) if wanted.knowledge else 0

        def total(chosen: Iterable[SetName]) -> int:
            return sum(lengths.get(kind, 0) for kind in set(chosen))

        problems = [kind for kind in kinds if kind.prompt_set == "problems"]
        return self._seconds_of_problems(wanted, settings, problems) + self.seconds(
            settings,
            written=total(kind.prompt_set for kind in kinds if kind.reads == "answers"),
            read=total(kind.prompt_set for kind in kinds if kind.reads == "first-token"),
            questions=asked if any(kind.prompt_set == "knowledge" for kind in kinds) else 0,
            max_new_tokens=wanted.max_new_tokens,
            read_again=total(kind.prompt_set for kind in kinds if kind.reads_answers_again),
        )

    def _seconds_of_problems(self, wanted: SweepSettings, settings: int, kinds: Sequence[type[Measure]]) -> float:
        """The seconds of the word problems, whose answers are longer."""
        known = (wanted.problem_count or 0) if isinstance(wanted.problems, str) else len(wanted.problems)
        asked = min(known, wanted.problem_count or known)
        tokens = [kind.answer_tokens or wanted.max_new_tokens for kind in kinds]
        return self.seconds(settings, asked, 0, 0, max(tokens)) if tokens else 0.0


def measure_pace(
    model: LoadedModel,
    circuit: Circuit,
    rows: int = ROWS_PER_BATCH,
    prompts: Sequence[str] | None = None,
    *,
    stop: threading.Event | None = None,
) -> Pace:
    """Measure the speed: prefill one batch and decode a few tokens.

    The batch shares no prefixes with an earlier one, and a sweep's batches do if they have the same prompts. So the
    prefill is measured at its slowest.

    Args:
        prompts: the prompts; None: the built-in evaluation prompts.

    Raises:
        StoppedError: `stop` was set.
    """
    asked = list(prompts or PromptSet.builtin("evaluation-harmful").prompts)
    conversations: list[list[Message]] = [as_messages(asked[place % len(asked)]) for place in range(rows)]
    # Rows have different strengths, because equal rows would be computed only once.
    lanes = [
        Lane(messages, strength=-0.01 * (place + 1), circuit=circuit) for place, messages in enumerate(conversations)
    ]
    tokens = sum(len(encode(model, messages)) for messages in conversations)
    first_token_logits(model, lanes[:2], None, stop=stop)  # the first pass after loading is slower
    prefixes = PrefixCaches(model, PREFIX_BYTES)
    started = time.perf_counter()
    first_token_logits(model, lanes, None, prefixes=prefixes, stop=stop)
    reading = time.perf_counter() - started
    first_step = 0.0
    for _ in generate(model, lanes, None, max_new_tokens=TRIAL_TOKENS, prefixes=prefixes, stop=stop):
        first_step = first_step or time.perf_counter()
    step = (time.perf_counter() - first_step) / (TRIAL_TOKENS - 1)
    return Pace(reading / tokens, step, rows, tokens / rows)


def estimate(
    model: LoadedModel, plan: SweepPlan, *, progress: Report | None = None, stop: threading.Event | None = None
) -> float:
    """The seconds that the rest of a planned sweep takes in this process, predicted from one short batch.

    Raises:
        StoppedError: `stop` was set.
    """
    done = set(Journal.start(plan.run, len(plan.batches), plan.identity).read())
    left = [batch for batch in plan.batches if batch.number not in done]
    if not left:
        return 0.0
    tell(progress, Stage.TIMING)
    rows = max(2, max(len(batch.cells) for batch in left))
    pace = measure_pace(
        model, plan.circuits[max(plan.circuits)], rows, plan.run.settings.prompts["harmful"].texts, stop=stop
    )
    read_again = {measure.prompt_set for measure in plan.measures if measure.reads_answers_again}
    seconds = 0.0
    for batch in left:
        read = sum(len(encode(model, plan.conversations[batch.prompt_set][prompt])) for prompt, _ in batch.cells)
        seconds += read * pace.reading_seconds
        longest = plan.answer_tokens(batch.prompt_set)
        if batch.reads == "answers":
            seconds += longest * pace.step_seconds
            if batch.prompt_set in read_again:
                seconds += (read + len(batch.cells) * longest) * pace.reading_seconds
    return seconds

"""The decode loop: several answers from one batch, each steered in its own way, token by token.

A lane is one answer: its messages and its steering. Knows lanes, tokens and text; forward passes are row_batch.py's,
choosing tokens is sampling.py's.
"""

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.prefix_cache import PrefixCaches, message_prefix
from cna_core.decoding.row_batch import PASS_TOKENS, RowBatch
from cna_core.decoding.sampling import Sampler, Sampling, SamplingOptions
from cna_core.decoding.text_stream import TextStream
from cna_core.errors import PromptError
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.intervention import Intervention, Material
from cna_core.interventions.plan import SteeringPlan
from cna_core.interventions.registry import DEFAULT_METHOD, method
from cna_core.limits import require_allowed
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message, encode

LONGEST_ANSWER = 200
"""Tokens, where nobody says otherwise."""


@dataclass(frozen=True)
class Lane:
    """One answer to be written.

    Args:
        messages: the conversation, ending with what is to be answered; or a user message.
        strength: 0 baseline, 1 ablated, 2 inverted; for methods on neurons also (n,), one a neuron in rank order.
        method: how it is steered: a fitted intervention, or the key of a method that acts on a circuit.
        circuit: for a key: instead of the circuit that `generate` is given.
        begun: ids of tokens that the answer begins with; they are read with the prompt, and steps tell what follows.
        not_first: ids of tokens that must not be the first that is written.

    Raises:
        StrengthError: the strength is not allowed here (`cna_core.limits`).
    """

    messages: str | Sequence[Message]
    strength: float | NDArray[np.floating] = 0.0
    method: str | Intervention = DEFAULT_METHOD
    circuit: Circuit | None = None
    begun: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_allowed(self.strength)

    @property
    def is_steered(self) -> bool:
        """Whether its strength is not 0."""
        return bool(np.any(np.asarray(self.strength) != 0.0))

    def change(self, model: LoadedModel, circuit: Circuit | None) -> RowChange:
        """How this lane's row is changed, where `circuit` is everybody's.

        Raises:
            CircuitError: there is no circuit, it belongs to another model, or the method must be fitted first.
        """
        if isinstance(self.method, Intervention):
            fitted = self.method
            fitted.check_model(model.identity)
        elif not self.is_steered and self.circuit is None and circuit is None:
            return NEUTRAL
        else:
            fitted = method(self.method).fit(Material(model, self.circuit or circuit))
        return fitted.change(self.strength)


@dataclass(frozen=True)
class Step:
    """One token of one lane.

    Args:
        lane: its place in the list of lanes.
        text: what the token adds to the answer; pieces join to the whole answer, none ends inside a character.
        token_id: the token.
        finished: whether it is the lane's last.
        finish_reason: "stop" (the model ended its answer) or "length" (max_new_tokens or the context is full).
        activity: the circuit's mean activation (see SteeringPlan) while this token was chosen; None if not measured.
        divergence: nats; see `generate`. None if not measured, and for lane 0.
    """

    lane: int
    text: str
    token_id: int
    finished: bool
    finish_reason: Literal["stop", "length"] | None = None
    activity: float | None = None
    divergence: float | None = None


@dataclass
class _Answer:
    """What is known of one lane while it is written."""

    lane: int
    prompt: list[int]
    steering: RowChange
    stream: TextStream
    limit: int
    prefix: int = 0  # how many first tokens of the prompt do not depend on the last message
    not_first: tuple[int, ...] = ()
    row: int = 0
    shadow: int | None = None  # the row of the untouched model that reads this lane's text
    written: list[int] = field(default_factory=list)
    finished: bool = False


def generate(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None,
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    sampling: Sampling | None = None,
    steer_prompt: bool = True,
    measure: bool = False,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
    **options: Unpack[SamplingOptions],
) -> Generator[Step, None, None]:
    """Write all lanes' answers from one batched decode; yields one `Step` a lane and token, lanes in turn.

    The batch never has fewer than two rows (bfloat16 kernels compute a lone row differently), so that a baseline is the
    same text whoever is written beside it. With sampling, lanes share their random numbers. Errors in the input are
    raised by the call itself, before the first step. Close the generator (`contextlib.closing`) to give its memory back
    early; nothing is hooked on the model between steps.

    Args:
        circuit: what lanes without a circuit of their own multiply; also the circuit whose activity is measured.
        max_new_tokens: the longest answer, in tokens; shorter where the context ends.
        sampling: how tokens are chosen; None: greedily.
        options: fields of `sampling` by name, which win.
        steer_prompt: False steers written tokens only: every lane reads the prompt as the untouched model.
        measure: also record, for each token, the circuit's activity and, for lanes ≥ 1, the divergence: the
            Kullback-Leibler divergence, in nats, of the lane's next-token distribution from that of the *untouched
            model that has read the same text, the lane's own*. Until the lanes part, this is the divergence from a
            baseline lane 0; after it, it still says what steering does to this very token, where a comparison across
            two texts would say nothing. The untouched reader is one more row of the batch.
        prefixes: what the model has read before; what it reads now is kept there.
        stop: when set, `StoppedError` is raised within one token, in a prefill within one layer.

    Raises:
        PromptError: no lanes, an empty message, one longer than the context, or a setting out of range.
        CircuitError: a circuit or vectors of another model.
        StoppedError: from a step.
    """
    sampler = Sampler(replace(sampling or Sampling(), **options))
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens must be 1 or more, not {max_new_tokens}.")
    answers = _prepared(model, lanes, circuit, max_new_tokens, prefixes is not None)
    decode = _Decode(model, answers, circuit if measure else None, sampler, steer_prompt, measure, prefixes, stop)
    return decode.steps()


def first_token_logits(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None,
    *,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
) -> Tensor:
    """(lanes, vocabulary) float32 on the CPU: each lane's logits for the first token of its answer, nothing written.

    Lanes are read in batches of similar length; lanes with the same text and steering are read once.

    Raises:
        PromptError, CircuitError, StoppedError: as for `generate`.
    """
    answers = _prepared(model, lanes, circuit, 1, prefixes is not None)
    distinct, places = _distinct(answers, steer_prompt=True)
    order = sorted(range(len(distinct)), key=lambda place: len(distinct[place].prompt))
    logits: list[Tensor] = [torch.empty(0)] * len(distinct)
    while order:
        count = max(2, PASS_TOKENS // len(distinct[order[0]].prompt))
        some = order[:count]
        while len(some) > 2 and len(some) * len(distinct[some[-1]].prompt) > PASS_TOKENS:
            some = some[: len(some) - max(1, len(some) // 8)]
        order = order[len(some) :]
        batch = RowBatch(model, stop)
        plan = SteeringPlan(model, [distinct[place].steering for place in some])
        rows = _read(batch, [distinct[place] for place in some], plan, prefixes)
        for place, row in zip(some, rows, strict=True):
            logits[place] = row.cpu()
    return torch.stack([logits[place] for place in places])


class _Decode:
    """The state of one call of `generate`: answers, and the batch of rows that writes them."""

    def __init__(
        self,
        model: LoadedModel,
        answers: list[_Answer],
        watched: Circuit | None,
        sampler: Sampler,
        steer_prompt: bool,
        measure: bool,
        prefixes: PrefixCaches | None,
        stop: threading.Event | None,
    ) -> None:
        self.model, self.answers, self.watched, self.sampler = model, answers, watched, sampler
        self.steer_prompt, self.measure, self.prefixes = steer_prompt, measure, prefixes
        self.batch = RowBatch(model, stop)
        self.ends = end_tokens(model)
        # Built here, so that a circuit of another model is told before the first step.
        self.plan = SteeringPlan(model, [answer.steering for answer in answers], watched)

    def steps(self) -> Generator[Step, None, None]:
        try:
            logits, activity = self._prefill()
            while True:
                living = [answer for answer in self.answers if not answer.finished]
                rows = _without_forbidden(logits[[answer.row for answer in living]], living)
                tokens = self.sampler.choose(rows, [answer.prompt + answer.written for answer in living])
                for answer, token in zip(living, tokens, strict=True):
                    yield self._written(answer, token, logits, activity)
                if all(answer.finished for answer in living):
                    return
                self._leave_finished_rows()
                logits = self.batch.step(self._next_tokens(), self.plan)
                activity = self.plan.activity
        finally:
            self.batch.release()

    def _prefill(self) -> tuple[Tensor, Tensor]:
        """Read each distinct prompt once, then spread cache, logits and activity over the rows of the decode."""
        distinct, places = _distinct(self.answers, self.steer_prompt)
        rows, steerings = list(places), [answer.steering for answer in self.answers]
        for answer, place in zip(self.answers, places, strict=True):
            answer.row = answer.lane
            if self.measure and answer.lane > 0 and not answer.steering.is_neutral:
                answer.shadow = len(rows)
                rows.append(_place_of_untouched(distinct, answer, place, self.steer_prompt))
                steerings.append(NEUTRAL)
        if len(rows) == 1:  # a lone row gets a copy beside it: two rows cost as much as one in bfloat16
            rows, steerings = rows * 2, steerings * 2
        if len(distinct) == 1 and len(distinct[0].prompt) - distinct[0].prefix < 2:
            distinct = distinct * 2  # a pass of one token computes as differently as a lone row of the decode
        plan = SteeringPlan(self.model, [answer.steering for answer in distinct], self.watched)
        logits = _read(self.batch, distinct, plan, self.prefixes)
        self.batch.select(rows)
        self.plan = SteeringPlan(self.model, steerings, self.watched)
        return logits[rows], plan.activity[rows]

    def _written(self, answer: _Answer, token: int, logits: Tensor, activity: Tensor) -> Step:
        """Note the token; the step that tells of it."""
        answer.written.append(token)
        ended = token in self.ends
        answer.finished = ended or len(answer.written) >= answer.limit
        text = "" if ended else answer.stream.add(token)
        if answer.finished:
            text += answer.stream.finish()
        divergence = None
        if self.measure and answer.lane > 0:
            divergence = 0.0 if answer.shadow is None else _divergence(logits[answer.row], logits[answer.shadow])
        return Step(
            lane=answer.lane,
            text=text,
            token_id=token,
            finished=answer.finished,
            finish_reason="stop" if ended else "length" if answer.finished else None,
            activity=float(activity[answer.row]) if self.measure and self.watched is not None else None,
            divergence=divergence,
        )

    def _leave_finished_rows(self) -> None:
        """Take rows of finished answers out of the batch, down to two."""
        living = [answer for answer in self.answers if not answer.finished]
        keep = [answer.row for answer in living] + [answer.shadow for answer in living if answer.shadow is not None]
        if len(keep) == 1:
            keep = keep * 2
        if len(keep) >= self.batch.rows:
            return
        for answer in living:
            answer.row = keep.index(answer.row)
            answer.shadow = None if answer.shadow is None else keep.index(answer.shadow)
        self.batch.select(keep)
        self.plan = self.plan.select(keep)

    def _next_tokens(self) -> list[int]:
        """What each row reads next; rows that no living answer needs read anything."""
        tokens = [0] * self.batch.rows
        for answer in self.answers:
            if answer.finished:
                continue
            tokens[answer.row] = answer.written[-1]
            if answer.shadow is not None:
                tokens[answer.shadow] = answer.written[-1]
        return tokens


def _without_forbidden(logits: Tensor, answers: Sequence[_Answer]) -> Tensor:
    """The rows' logits (answers, vocabulary), with −∞ for tokens that must not come first where none is written yet."""
    if not any(answer.not_first and not answer.written for answer in answers):
        return logits
    logits = logits.clone()
    for row, answer in zip(logits, answers, strict=True):
        if not answer.written:
            row[list(answer.not_first)] = -torch.inf
    return logits


def end_tokens(model: LoadedModel) -> frozenset[int]:
    """Ids that end an answer: the generation configuration's and the tokenizer's."""
    ends: set[int] = set()
    for given in (model.network.generation_config.eos_token_id, model.tokenizer.eos_token_id):
        if given is not None:
            ends.update([given] if isinstance(given, int) else given)
    return frozenset(ends)


def _prepared(
    model: LoadedModel, lanes: Sequence[Lane], circuit: Circuit | None, max_new_tokens: int, with_prefix: bool
) -> list[_Answer]:
    if not lanes:
        raise PromptError("There is nothing to answer; give at least one lane.")
    encoded: dict[int, tuple[list[int], int]] = {}
    answers = []
    for place, lane in enumerate(lanes):
        if id(lane.messages) not in encoded:
            tokens = encode(model, lane.messages)
            prefix = message_prefix(model, lane.messages, tokens) if with_prefix else 0
            encoded[id(lane.messages)] = (tokens, prefix)
        prompt, prefix = encoded[id(lane.messages)]
        prompt = [*prompt, *lane.begun]
        room = model.context_tokens - len(prompt)
        if room < 1:
            raise PromptError(
                f"The conversation has {len(prompt):,} tokens and {model.name} reads at most "
                f"{model.context_tokens:,}, answer included; shorten it or clear the history."
            )
        stream, limit = TextStream(model.tokenizer), min(max_new_tokens, room)
        answers.append(_Answer(place, prompt, lane.change(model, circuit), stream, limit, prefix, lane.not_first))
    return answers


def _read(batch: RowBatch, answers: Sequence[_Answer], plan: SteeringPlan, prefixes: PrefixCaches | None) -> Tensor:
    """Prefill these answers' prompts, one row each."""
    prompts = [answer.prompt for answer in answers]
    if prefixes is None:
        return batch.prefill(prompts, plan)
    return prefixes.prefill(batch, prompts, [answer.prefix for answer in answers], plan)


def _distinct(answers: Sequence[_Answer], steer_prompt: bool) -> tuple[list[_Answer], list[int]]:
    """Answers whose prompts must be read, each once and steered as it is read; and each answer's place among them."""
    found: dict[tuple[object, ...], int] = {}
    distinct: list[_Answer] = []
    places = []
    for answer in answers:
        steering = answer.steering if steer_prompt and not answer.steering.is_neutral else NEUTRAL
        key = (tuple(answer.prompt), steering.key)
        if key not in found:
            found[key] = len(distinct)
            distinct.append(replace(answer, steering=steering))
        places.append(found[key])
    return distinct, places


def _place_of_untouched(distinct: list[_Answer], answer: _Answer, place: int, steer_prompt: bool) -> int:
    """Where in `distinct` the untouched model reads this answer's prompt; added where nobody else asked for it."""
    if not steer_prompt:
        return place
    for place, other in enumerate(distinct):
        if other.steering.is_neutral and other.prompt == answer.prompt:
            return place
    distinct.append(replace(answer, steering=NEUTRAL))
    return len(distinct) - 1


def _divergence(steered: Tensor, untouched: Tensor) -> float:
    """KL(steered ‖ untouched) in nats, of two rows of logits."""
    steered, untouched = steered.double().log_softmax(-1), untouched.double().log_softmax(-1)
    return max(0.0, float((steered.exp() * (steered - untouched)).sum()))

"""A running decode that answers may enter and leave at every token, each with its own steering and sampling.

A new answer's prompt is read on its own; its row is then joined to those that are being written. Knows token ids, rows
and text; what a lane or a conversation is, lanes.py knows.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.last_tokens import shares_prefix
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.reading import Prompt, TokenChances, distinct, place_of_untouched, read
from cna_core.decoding.row_batch import PASS_TOKENS, RowBatch
from cna_core.decoding.sampling import Sampler
from cna_core.decoding.text_stream import StopTexts, TextStream
from cna_core.interventions.change import NEUTRAL
from cna_core.interventions.plan import SteeringPlan
from cna_core.models.loaded import LoadedModel


@dataclass(frozen=True)
class Step:
    """One token of one lane.

    Args:
        lane: its place in the list of lanes; in a session, its ticket.
        text: what the token adds to the answer; pieces join to the whole answer, none ends inside a character.
        token_id: the token.
        finished: whether it is the lane's last.
        finish_reason: "stop" (the model ended its answer, or a stop text came) or "length" (max_new_tokens or the
            context is full).
        layer_activity: the circuit's activity in each of its layers, ascending, while this token was chosen, before
            anything was changed there (see `Watch`); None if not recorded.
        divergence: nats; see `lanes.generate`. None if not measured, and for lane 0.
        chances: how likely the token was, before sampling settings; None if not asked for.
    """

    lane: int
    text: str
    token_id: int
    finished: bool
    finish_reason: Literal["stop", "length"] | None = None
    layer_activity: tuple[float, ...] | None = None
    divergence: float | None = None
    chances: TokenChances | None = None

    @property
    def activity(self) -> float | None:
        """The circuit's mean activation: the sum over its layers."""
        return None if self.layer_activity is None else sum(self.layer_activity)


@dataclass(frozen=True)
class Request:
    """One answer to be written.

    Args:
        prompt: what is read first, and how the row is steered.
        limit: the longest answer, in tokens; the caller has seen to it that the context holds it.
        sampler: chooses the tokens; answers with the same one share its random numbers.
        stops: texts that end the answer and are left out of it.
        likeliest: None, or how many of the likeliest tokens each step tells.
        compared: whether its divergence from the untouched model is measured, by a row more where it is steered.
        not_first: ids of tokens that must not be the first that is written.
        begun: ids of the prompt's last tokens that belong to the answer: the text of what is written continues theirs.
    """

    prompt: Prompt
    limit: int
    sampler: Sampler
    stops: tuple[str, ...] = ()
    likeliest: int | None = None
    compared: bool = False
    not_first: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()


@dataclass(eq=False)
class _Answer:
    """What is known of one answer while it is written."""

    ticket: int
    request: Request
    stream: TextStream
    stop_texts: StopTexts
    row: int = 0
    shadow: int | None = None  # the row of the untouched model that reads this answer's text
    written: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def rows(self) -> list[int]:
        return [self.row] if self.shadow is None else [self.row, self.shadow]


class DecodeSession:
    """Answers being written by one batch of rows; use it from one thread, which holds the model.

    The batch never has fewer than two rows: bfloat16 kernels compute a lone row differently. A model that carries a
    state instead of a cache (Mamba, say) lets nobody in while answers are written: they wait until the batch is empty.

    Args:
        model: the model.
        ends: ids of the tokens that end an answer (`lanes.end_tokens`).
        watched: the circuit whose activity is measured, or None.
        steer_prompt: False steers written tokens only.
        prefixes: what the model has read before; what it reads now is kept there.
        joins: whether answers may enter while others are written. It needs the keys and values of every token, where
            layers with a sliding window could do with fewer; without it, answers wait until the batch is empty.
        stop: when set, `StoppedError` is raised within one token, in a prefill within one layer.

    Example:
        session = DecodeSession(model, end_tokens(model))
        ticket = session.add(Request(Prompt(tokens), limit=50, sampler=Sampler(Sampling())))
        while session.answers:
            for step in session.step(): ...
    """

    def __init__(
        self,
        model: LoadedModel,
        ends: frozenset[int],
        *,
        watched: Circuit | None = None,
        steer_prompt: bool = True,
        prefixes: PrefixCaches | None = None,
        joins: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        self.model, self.ends, self.watched = model, ends, watched
        self.steer_prompt, self.stop = steer_prompt, stop
        self.joins = joins and shares_prefix(model)
        if (
            prefixes is None and self.joins
        ):  # whoever joins needs the cache's plain form, which reading through these makes
            prefixes = PrefixCaches(model, kept_bytes=0)
        self.prefixes = prefixes
        self.batch = RowBatch(model, stop)
        self.plan: SteeringPlan | None = None
        self._waiting: deque[_Answer] = deque()
        self._living: list[_Answer] = []
        self._tickets = 0

    @property
    def answers(self) -> int:
        """How many answers wait or are being written."""
        return len(self._waiting) + len(self._living)

    @property
    def rows(self) -> int:
        """How many rows the batch has now; up to one token's time more than its answers need."""
        return self.batch.rows if self._living else 0

    def add(self, request: Request) -> int:
        """Let an answer in with the next step; its ticket, the `lane` of its steps."""
        ticket, self._tickets = self._tickets, self._tickets + 1
        stream = TextStream(self.model.tokenizer)
        for token in request.begun:
            stream.add(token)
        self._waiting.append(_Answer(ticket, request, stream, StopTexts(request.stops)))
        return ticket

    def remove(self, ticket: int) -> None:
        """Let an answer go; its row leaves the batch before the next token."""
        self._waiting = deque(answer for answer in self._waiting if answer.ticket != ticket)
        for answer in self._living:
            answer.finished = answer.finished or answer.ticket == ticket
        if all(answer.finished for answer in self._living):
            self._empty()

    def step(self) -> list[Step]:
        """Write one token of every answer, in the order in which they came; answers that wait are let in.

        Raises:
            StoppedError: `stop` was set. Then the session is at an end: `release` it.
        """
        logits = activity = torch.empty(0)
        if self._living:
            self._leave(spare=True)
            assert self.plan is not None
            logits = self.batch.step(self._next_tokens(), self.plan)
            activity = self.plan.layer_activity
        if newcomers := self._admitted():
            logits, activity = self._let_in(newcomers, logits, activity)
        tokens = self._chosen(logits)
        steps = [self._written(answer, tokens[answer.ticket], logits, activity) for answer in self._living]
        if all(answer.finished for answer in self._living):
            self._empty()
        return steps

    def release(self) -> None:
        """Forget all answers and give the memory back."""
        self._waiting.clear()
        self._empty()

    def _empty(self) -> None:
        self._living = []
        self.batch.release()
        self.batch, self.plan = RowBatch(self.model, self.stop), None

    # --- letting in ---------------------------------------------------------------------------------------------------

    def _admitted(self) -> list[_Answer]:
        """Those that wait and may enter now: as many as one pass reads, so that nobody's next token waits long."""
        if self._living and not (self.joins and self.batch.can_join):
            return []
        if not self.joins:
            admitted, self._waiting = list(self._waiting), deque()
            return admitted
        admitted, longest = [], 0
        while self._waiting:
            longest = max(longest, len(self._waiting[0].request.prompt.tokens))
            if admitted and longest * (len(admitted) + 1) > PASS_TOKENS:
                break
            admitted.append(self._waiting.popleft())
        return admitted

    def _let_in(self, newcomers: list[_Answer], logits: Tensor, activity: Tensor) -> tuple[Tensor, Tensor]:
        """Read each distinct prompt once, spread cache, logits and activity over rows, and join these to the batch."""
        to_read, places = distinct([answer.request.prompt for answer in newcomers], self.steer_prompt)
        rows, steerings = list(places), [answer.request.prompt.steering for answer in newcomers]
        for number, (answer, place) in enumerate(zip(newcomers, places, strict=True)):
            answer.row = number
            prompt = answer.request.prompt
            if answer.request.compared and not prompt.steering.is_neutral:
                answer.shadow = len(rows)
                rows.append(place_of_untouched(to_read, prompt) if self.steer_prompt else place)
                steerings.append(NEUTRAL)
        if len(rows) == 1 and not self._living:  # a copy beside a lone row: two cost as much as one in bfloat16
            rows, steerings = rows * 2, steerings * 2
        if len(to_read) == 1 and len(to_read[0].tokens) - to_read[0].prefix < 2:
            to_read = to_read * 2  # a pass of one token computes as differently as a lone row of the decode
        plan = SteeringPlan(self.model, [prompt.steering for prompt in to_read], self.watched)
        batch = RowBatch(self.model, self.stop)
        fresh_logits = read(batch, to_read, plan, self.prefixes)[rows]
        fresh_activity = plan.layer_activity[rows]
        batch.select(rows)
        if self._living:
            keep = self._leave(spare=False)
            logits, activity = logits[keep], activity[keep]
            for answer in newcomers:
                answer.row += len(keep)
                answer.shadow = None if answer.shadow is None else answer.shadow + len(keep)
            assert self.plan is not None
            steerings = [*self.plan.rows, *steerings]
            self.batch.join(batch)
            fresh_logits, fresh_activity = torch.cat([logits, fresh_logits]), torch.cat([activity, fresh_activity])
        else:
            self.batch = batch
        self.plan = SteeringPlan(self.model, steerings, self.watched)
        self._living += newcomers
        return fresh_logits, fresh_activity

    # --- writing ------------------------------------------------------------------------------------------------------

    def _chosen(self, logits: Tensor) -> dict[int, int]:
        """The next token of each answer, by ticket; answers with one sampler choose together."""
        by_sampler: dict[int, list[_Answer]] = {}
        for answer in self._living:
            by_sampler.setdefault(id(answer.request.sampler), []).append(answer)
        chosen: dict[int, int] = {}
        for some in by_sampler.values():
            seen = [[*answer.request.prompt.tokens, *answer.written] for answer in some]
            rows = _without_forbidden(logits[[answer.row for answer in some]], some)
            tokens = some[0].request.sampler.choose(rows, seen)
            chosen.update(zip((answer.ticket for answer in some), tokens, strict=True))
        return chosen

    def _written(self, answer: _Answer, token: int, logits: Tensor, activity: Tensor) -> Step:
        """Note the token; the step that tells of it."""
        answer.written.append(token)
        ended = token in self.ends
        text = "" if ended else answer.stop_texts.add(answer.stream.add(token))
        answer.finished = ended or answer.stop_texts.found or len(answer.written) >= answer.request.limit
        if answer.finished and not answer.stop_texts.found:
            text += answer.stop_texts.add(answer.stream.finish())
        if answer.finished and not answer.stop_texts.found:
            text += answer.stop_texts.finish()
        stopped = ended or answer.stop_texts.found
        divergence = None
        if answer.request.compared:
            divergence = 0.0 if answer.shadow is None else _divergence(logits[answer.row], logits[answer.shadow])
        likeliest = answer.request.likeliest
        return Step(
            lane=answer.ticket,
            text=text,
            token_id=token,
            finished=answer.finished,
            finish_reason="stop" if stopped else "length" if answer.finished else None,
            layer_activity=None if self.watched is None else tuple(activity[answer.row].tolist()),
            divergence=divergence,
            chances=None if likeliest is None else TokenChances.of(logits[answer.row], token, likeliest),
        )

    def _leave(self, spare: bool) -> list[int]:
        """Take rows that no living answer needs out of the batch; the rows that stayed, by their old places.

        Args:
            spare: whether a lone row keeps a copy beside it.
        """
        self._living = [answer for answer in self._living if not answer.finished]
        keep = [answer.row for answer in self._living]
        keep += [answer.shadow for answer in self._living if answer.shadow is not None]
        if len(keep) == 1 and spare:
            keep = keep * 2
        if len(keep) >= self.batch.rows:
            return list(range(self.batch.rows))
        for answer in self._living:
            answer.row = keep.index(answer.row)
            answer.shadow = None if answer.shadow is None else keep.index(answer.shadow)
        self.batch.select(keep)
        assert self.plan is not None
        self.plan = self.plan.select(keep)
        return keep

    def _next_tokens(self) -> list[int]:
        """What each row reads next; rows that no living answer needs read anything."""
        tokens = [0] * self.batch.rows
        for answer in self._living:
            for row in answer.rows:
                tokens[row] = answer.written[-1]
        return tokens


def _without_forbidden(logits: Tensor, answers: Sequence[_Answer]) -> Tensor:
    """The answers' logits (answers, vocabulary), with −∞ for tokens that must not come first where none is written."""
    for row, answer in enumerate(answers):
        if answer.request.not_first and not answer.written:
            logits[row, list(answer.request.not_first)] = -torch.inf
    return logits


def _divergence(steered: Tensor, untouched: Tensor) -> float:
    """KL(steered ‖ untouched) in nats, of two rows of logits."""
    steered, untouched = steered.double().log_softmax(-1), untouched.double().log_softmax(-1)
    return max(0.0, float((steered.exp() * (steered - untouched)).sum()))

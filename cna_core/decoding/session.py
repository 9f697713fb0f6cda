"""A running decode that answers can join and leave at every token, each with its own steering and sampling.

The prompt of a new answer is computed alone; then its row joins the batch. This module knows token ids, rows and text;
it does not know lanes and conversations (lanes.py).
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.last_tokens import shares_prefix
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.reading import Prompt, TokenChances, distinct, place_of_untouched, read
from cna_core.decoding.row_batch import PASS_TOKENS, RowBatch
from cna_core.decoding.sampling import Sampler
from cna_core.decoding.text_stream import AnswerStream, StopTexts
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.plan import SteeringPlan
from cna_core.models.loaded import LoadedModel
from cna_core.models.needs import saying_what_fits
from cna_core.prompts.thinking import Part


@dataclass(frozen=True)
class Step:
    """One token of one lane.

    Args:
        lane: the index of the lane; in a session, the answer's ticket.
        text: the text that the token adds to the answer; no piece ends inside a character.
        token_id: the token.
        finished: whether it is the lane's last token.
        finish_reason: "stop" (the model ended its answer, or a stop text occurred) or "length" (max_new_tokens or the
            end of the context was reached).
        layer_activity: the circuit's activity in each of its layers, ascending, when this token was chosen, before
            steering changes it (see `Watch`); None if not recorded.
        divergence: in nats; see `lanes.generate`. None if not measured, and for lane 0.
        chances: the token's probability before sampling settings; None if not requested.
        thought: the text that the token adds to the thought before the answer.
        in_thought: whether the thought is open after this token.
        thought_tokens: the number of the lane's tokens so far that belong to the thought or its markers.
    """

    lane: int
    text: str
    token_id: int
    finished: bool
    finish_reason: Literal["stop", "length"] | None = None
    layer_activity: tuple[float, ...] | None = None
    divergence: float | None = None
    chances: TokenChances | None = None
    thought: str = ""
    in_thought: bool = False
    thought_tokens: int = 0

    @property
    def activity(self) -> float | None:
        """The circuit's mean activation: the sum over its layers."""
        return None if self.layer_activity is None else sum(self.layer_activity)


@dataclass(frozen=True)
class Request:
    """One answer to generate.

    Args:
        prompt: the prompt and the steering of the row.
        limit: the most tokens of the answer; the caller has checked that they fit into the context.
        sampler: chooses the tokens; answers with the same sampler share its random numbers.
        stops: texts that end the answer and are not part of it.
        likeliest: the number of likeliest tokens in each step, or None.
        compared: whether to measure the divergence from the unsteered model; a steered answer needs one more row.
        not_first: token ids that are forbidden as the first generated token.
        begun: the ids of the prompt's last tokens that belong to the answer; the generated text continues theirs.
        by_part: the steering of thought and answer, if they differ. Where the part changes, the model reads prompt and
            generated text again with the new part's steering, so it continues as if it had been steered like this from
            the beginning. `prompt.steering` is that of the part that comes first.
    """

    prompt: Prompt
    limit: int
    sampler: Sampler
    stops: tuple[str, ...] = ()
    likeliest: int | None = None
    compared: bool = False
    not_first: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()
    by_part: Mapping[Part, RowChange] | None = None


@dataclass(eq=False)
class _Answer:
    """The state of one answer during generation."""

    ticket: int
    request: Request
    stream: AnswerStream
    stop_texts: StopTexts
    prompt: Prompt  # what is computed when the answer joins: after a change of steering, with the generated text
    row: int = 0
    shadow: int | None = None  # the row in which the unsteered model reads this answer's text
    written: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def rows(self) -> list[int]:
        return [self.row] if self.shadow is None else [self.row, self.shadow]


class DecodeSession:
    """Answers that one batch generates. Use it from one thread, which holds the model.

    The batch always has at least two rows, because bfloat16 kernels compute a single row differently. With a model that
    has a state instead of a cache (such as Mamba), new answers wait until the batch is empty.

    Args:
        model: the model.
        ends: the token ids that end an answer (`lanes.end_tokens`).
        watched: the circuit whose activity is measured, or None.
        steer_prompt: False steers generated tokens only.
        prefixes: prefix caches of earlier prompts; new prefixes are added.
        joins: whether answers may join a running batch. This needs the keys and values of every token, even in layers
            with a sliding window; without it, answers wait until the batch is empty.
        stop: when set, `StoppedError` is raised within one token, and during prefill within one layer.

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
        if prefixes is None and self.joins:  # joining needs the plain form of the cache, which these make
            prefixes = PrefixCaches(model, kept_bytes=0)
        self.prefixes = prefixes
        self.batch = RowBatch(model, stop)
        self.plan: SteeringPlan | None = None
        self._waiting: deque[_Answer] = deque()
        self._living: list[_Answer] = []
        self._tickets = 0

    @property
    def answers(self) -> int:
        """The number of waiting and running answers."""
        return len(self._waiting) + len(self._living)

    @property
    def rows(self) -> int:
        """The number of rows in the batch; for up to one token it can exceed the number that the answers need."""
        return self.batch.rows if self._living else 0

    def add(self, request: Request) -> int:
        """Add an answer, which joins at the next step; returns its ticket, the `lane` of its steps."""
        ticket, self._tickets = self._tickets, self._tickets + 1
        stream = AnswerStream(self.model.tokenizer, request.prompt.thinking)
        for token in request.begun:
            stream.add(token)
        self._waiting.append(_Answer(ticket, request, stream, StopTexts(request.stops), request.prompt))
        return ticket

    def remove(self, ticket: int) -> None:
        """Drop an answer; its row leaves the batch before the next token."""
        self._waiting = deque(answer for answer in self._waiting if answer.ticket != ticket)
        for answer in self._living:
            answer.finished = answer.finished or answer.ticket == ticket
        if all(answer.finished for answer in self._living):
            self._empty()

    def step(self) -> list[Step]:
        """Generate one token of every answer, in the order of their arrival; waiting answers join first.

        Raises:
            NoRoomError: memory ran out. As with `StoppedError`, `release` the session.
            StoppedError: `stop` was set. The session cannot be used any more: `release` it.
        """
        with saying_what_fits(self.model, "answers were generated"):
            return self._stepped()

    def _stepped(self) -> list[Step]:
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
        self._let_change_steering()
        if all(answer.finished for answer in self._living):
            self._empty()
        return steps

    def release(self) -> None:
        """Drop all answers and free the memory."""
        self._waiting.clear()
        self._empty()

    def _empty(self) -> None:
        self._living = []
        self.batch.release()
        self.batch, self.plan = RowBatch(self.model, self.stop), None

    # --- joining ------------------------------------------------------------------------------------------------------

    def _admitted(self) -> list[_Answer]:
        """The waiting answers that join now: as many as one pass computes: running ones wait only briefly."""
        if self._living and not (self.joins and self.batch.can_join):
            return []
        if not self.joins:
            admitted, self._waiting = list(self._waiting), deque()
            return admitted
        admitted, longest = [], 0
        while self._waiting:
            longest = max(longest, len(self._waiting[0].prompt.tokens))
            if admitted and longest * (len(admitted) + 1) > PASS_TOKENS:
                break
            admitted.append(self._waiting.popleft())
        return admitted

    def _let_in(self, newcomers: list[_Answer], logits: Tensor, activity: Tensor) -> tuple[Tensor, Tensor]:
        """Compute each distinct prompt once, copy cache, logits and activity to all its rows, and append the rows."""
        to_read, places = distinct([answer.prompt for answer in newcomers], self.steer_prompt)
        rows, steerings = list(places), [answer.prompt.steering for answer in newcomers]
        for number, (answer, place) in enumerate(zip(newcomers, places, strict=True)):
            answer.row, answer.shadow = number, None
            prompt = answer.prompt
            if answer.request.compared and not prompt.steering.is_neutral:
                answer.shadow = len(rows)
                rows.append(place_of_untouched(to_read, prompt) if self.steer_prompt else place)
                steerings.append(NEUTRAL)
        if len(rows) == 1 and not self._living:  # add a copy to a single row: in bfloat16, two rows cost as much as one
            rows, steerings = rows * 2, steerings * 2
        if len(to_read) == 1 and len(to_read[0].tokens) - to_read[0].prefix < 2:
            to_read = to_read * 2  # a pass of one token computes as differently as a single row
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
        self._living = sorted([*self._living, *newcomers], key=lambda answer: answer.ticket)
        return fresh_logits, fresh_activity

    def _let_change_steering(self) -> None:
        """Let answers whose other part begins join again, with that part's steering."""
        for answer in list(self._living):
            by_part = answer.request.by_part
            if answer.finished or by_part is None:
                continue
            steering = by_part[answer.stream.part]
            if steering.key != answer.prompt.steering.key:
                tokens = [*answer.request.prompt.tokens, *answer.written]
                answer.prompt = replace(answer.prompt, tokens=tokens, steering=steering)
                self._living.remove(answer)
                self._waiting.append(answer)

    # --- generating ---------------------------------------------------------------------------------------------------

    def _chosen(self, logits: Tensor) -> dict[int, int]:
        """The next token of each answer, by ticket; answers with the same sampler choose together."""
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
        """Record the token, and return its step."""
        answer.written.append(token)
        ended = token in self.ends
        thought, text = ("", "") if ended else answer.stream.add(token)
        text = answer.stop_texts.add(text)
        answer.finished = ended or answer.stop_texts.found or len(answer.written) >= answer.request.limit
        if answer.finished and not answer.stop_texts.found:
            rest = answer.stream.finish()
            thought, text = thought + rest.thought, text + answer.stop_texts.add(rest.answer)
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
            thought=thought,
            in_thought=answer.stream.in_thought,
            thought_tokens=answer.stream.thought_tokens,
        )

    def _leave(self, spare: bool) -> list[int]:
        """Remove rows that no running answer needs; returns the remaining rows, by their old indices.

        Args:
            spare: whether a single row keeps a copy.
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
        """The next input token of each row; rows that no answer needs get an arbitrary token."""
        tokens = [0] * self.batch.rows
        for answer in self._living:
            for row in answer.rows:
                tokens[row] = answer.written[-1]
        return tokens


def _without_forbidden(logits: Tensor, answers: Sequence[_Answer]) -> Tensor:
    """The answers' logits (answers, vocabulary), with −∞ for forbidden first tokens."""
    for row, answer in enumerate(answers):
        if answer.request.not_first and not answer.written:
            logits[row, list(answer.request.not_first)] = -torch.inf
    return logits


def _divergence(steered: Tensor, untouched: Tensor) -> float:
    """KL(steered ‖ unsteered), in nats, of two rows of logits."""
    steered, untouched = steered.double().log_softmax(-1), untouched.double().log_softmax(-1)
    return max(0.0, float((steered.exp() * (steered - untouched)).sum()))

"""Generates several answers in one batch, each with its own steering, token by token.

A lane is one answer: its messages and its steering. The decode loop is in session.py, forward passes in row_batch.py,
and the choice of tokens in sampling.py.
"""

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.prefix_cache import PrefixCaches, message_prefix
from cna_core.decoding.reading import Prompt, distinct, read
from cna_core.decoding.row_batch import PASS_TOKENS, RowBatch
from cna_core.decoding.sampling import Sampler, Sampling, SamplingOptions
from cna_core.decoding.session import DecodeSession, Request, Step
from cna_core.decoding.text_stream import AnswerStream
from cna_core.errors import PromptError
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.intervention import Intervention, Material
from cna_core.interventions.plan import SteeringPlan
from cna_core.interventions.registry import DEFAULT_METHOD, method
from cna_core.limits import require_allowed
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message, encode, thinking_after
from cna_core.prompts.thinking import Part

LONGEST_ANSWER = 200
"""The default maximum length of an answer, in tokens."""
SteeredPart = Literal["both", "thought", "answer"]
"""The part of an answer in which steering acts. In "thought", the unsteered model reads prompt and thought and writes
the answer; in "answer", it writes the thought, and the steered model reads prompt and thought and writes the answer."""
LIKELIEST = 10
"""The number of likeliest tokens in a recorded step."""


@dataclass(frozen=True)
class Lane:
    """One answer to generate.

    Args:
        messages: a conversation that ends with a user message, or a user message.
        strength: 0 baseline, 1 ablated, 2 inverted; for methods on neurons also (n,), one per neuron in rank order.
        method: a fitted intervention, or the key of a method that acts on a circuit.
        circuit: the circuit for a key; None: the circuit that `generate` receives.
        begun: token ids with which the answer begins; they count as part of the prompt, and steps have the tokens after
            them.
        not_first: token ids that are forbidden as the first generated token.
        thinking: whether the model is asked to think before it answers, if it can; None: as its template does by
            default.
        steers: the part in which steering acts, in models that think.

    Raises:
        StrengthError: the strength is not allowed here (`cna_core.limits`).
    """

    messages: str | Sequence[Message]
    strength: float | NDArray[np.floating] = 0.0
    method: str | Intervention = DEFAULT_METHOD
    circuit: Circuit | None = None
    begun: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    thinking: bool | None = False
    steers: SteeredPart = "both"

    def __post_init__(self) -> None:
        require_allowed(self.strength)

    @property
    def is_steered(self) -> bool:
        """Whether its strength is not 0."""
        return bool(np.any(np.asarray(self.strength) != 0.0))

    def change(self, model: LoadedModel, circuit: Circuit | None) -> RowChange:
        """The steering of this lane's row; `circuit` is the circuit of lanes that have none of their own.

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

    def changes(self, model: LoadedModel, circuit: Circuit | None) -> Mapping[Part, RowChange]:
        """The steering of thought and answer; arguments and errors as for `change`."""
        change = self.change(model, circuit)
        return {
            "thought": NEUTRAL if self.steers == "answer" else change,
            "answer": NEUTRAL if self.steers == "thought" else change,
        }


def generate(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None,
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    sampling: Sampling | None = None,
    steer_prompt: bool = True,
    record: bool = False,
    measure: bool = False,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
    **options: Unpack[SamplingOptions],
) -> Generator[Step, None, None]:
    """Generate the answers of all lanes in one batch; yields one `Step` per lane and token, in the order of the lanes.

    The batch always has at least two rows (bfloat16 kernels compute a single row differently), so the baseline's text
    does not depend on the other lanes. With sampling, all lanes use the same random numbers. The call itself raises
    errors in the input, before the first step. Close the generator (`contextlib.closing`) to free its memory early;
    there are no hooks on the model between steps.

    Args:
        circuit: the circuit of lanes that have none of their own; also the circuit whose activity is measured.
        max_new_tokens: the most tokens of an answer; fewer if the context ends.
        sampling: how tokens are chosen; None: greedily.
        options: fields of `sampling` by name, which override it.
        steer_prompt: False steers generated tokens only; the prompt is computed by the unsteered model.
        record: record for each token the circuit's activity by layer (`Step.layer_activity`) and the token's
            probability (`Step.chances`, with the likeliest tokens); costs a few percent.
        measure: like `record`, and also measure the divergence of lanes ≥ 1: the Kullback-Leibler divergence, in nats,
            of the lane's next-token distribution from that of the *unsteered model after the same text*. Until the
            lanes' texts differ, this is the divergence from a baseline lane 0. Afterwards it still shows the effect of
            steering on this token, which a comparison of two different texts could not. It needs one more row.
        prefixes: prefix caches of earlier prompts; new prefixes are added.
        stop: when set, `StoppedError` is raised within one token, and during prefill within one layer.

    Raises:
        PromptError: no lanes, an empty message, one longer than the context, or a setting out of range.
        CircuitError: the circuit or the vectors belong to another model.
        StoppedError: `stop` was set; raised by a step.
    """
    sampling = replace(sampling or Sampling(), **options)
    record = record or measure
    asked = requests(
        model, lanes, circuit, max_new_tokens=max_new_tokens, sampling=sampling, record=record, measure=measure
    )
    session = DecodeSession(
        model,
        end_tokens(model),
        watched=circuit if record else None,
        steer_prompt=steer_prompt,
        prefixes=prefixes,
        joins=any(request.by_part is not None for request in asked),
        stop=stop,
    )
    for request in asked:
        session.add(request)
    return _steps(session)


def requests(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None,
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    sampling: Sampling | None = None,
    record: bool = False,
    measure: bool = False,
) -> list[Request]:
    """The lanes as a decode session takes them, checked; arguments and errors as for `generate`."""
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens must be 1 or more, not {max_new_tokens}.")
    sampler, likeliest = Sampler(sampling or Sampling()), LIKELIEST if record or measure else None
    prompts = _prepared(model, lanes, circuit, with_prefix=True)
    if circuit is not None and likeliest is not None:
        circuit.check_model(model.identity)
    found = []
    for place, (lane, prompt) in enumerate(zip(lanes, prompts, strict=True)):
        limit = min(max_new_tokens, room_for_answer(model, prompt.tokens))
        compared = measure and place > 0
        by_part = None if lane.steers == "both" else lane.changes(model, circuit)
        found.append(Request(prompt, limit, sampler, (), likeliest, compared, lane.not_first, lane.begun, by_part))
    return found


def _steps(session: DecodeSession) -> Generator[Step, None, None]:
    try:
        while session.answers:
            yield from session.step()
    finally:
        session.release()


def first_token_logits(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None,
    *,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
) -> Tensor:
    """(lanes, vocabulary) float32 on the CPU: each lane's logits for the first token of its answer, without generation.

    Lanes of similar length share a batch; lanes with the same text and steering are computed once.

    Raises:
        PromptError, CircuitError, StoppedError: as for `generate`.
    """
    to_read, places = distinct(_prepared(model, lanes, circuit, prefixes is not None))
    order = sorted(range(len(to_read)), key=lambda place: len(to_read[place].tokens))
    logits: list[Tensor] = [torch.empty(0)] * len(to_read)
    while order:
        count = max(2, PASS_TOKENS // len(to_read[order[0]].tokens))
        some = order[:count]
        while len(some) > 2 and len(some) * len(to_read[some[-1]].tokens) > PASS_TOKENS:
            some = some[: len(some) - max(1, len(some) // 8)]
        order = order[len(some) :]
        plan = SteeringPlan(model, [to_read[place].steering for place in some])
        rows = read(RowBatch(model, stop), [to_read[place] for place in some], plan, prefixes)
        for place, row in zip(some, rows, strict=True):
            logits[place] = row.cpu()
    return torch.stack([logits[place] for place in places])


def end_tokens(model: LoadedModel) -> frozenset[int]:
    """The token ids that end an answer, from the generation configuration and the tokenizer."""
    ends: set[int] = set()
    for given in (model.network.generation_config.eos_token_id, model.tokenizer.eos_token_id):
        if given is not None:
            ends.update([given] if isinstance(given, int) else given)
    return frozenset(ends)


def as_prompt(
    model: LoadedModel,
    messages: str | Sequence[Message],
    steering: RowChange = NEUTRAL,
    with_prefix: bool = True,
    thinking: bool | None = False,
) -> Prompt:
    """A conversation as tokens, with the steering of its row.

    Args:
        with_prefix: whether to cache the part before the last message (`PrefixCaches`).
        thinking: as in `Lane`.

    Raises:
        PromptError: it is empty, the template rejects it, or it leaves no room for an answer.
    """
    tokens = encode(model, messages, thinking)
    room_for_answer(model, tokens)
    prefix = message_prefix(model, messages, tokens, thinking) if with_prefix else 0
    return Prompt(tokens, steering, prefix, thinking_after(model, messages, thinking))


def part_after(model: LoadedModel, prompt: Prompt, written: Sequence[int]) -> tuple[Part, int]:
    """The part to which the token after a generated text belongs, and the number of tokens of its thought.

    Args:
        written: the token ids of the generated text.
    """
    stream = AnswerStream(model.tokenizer, prompt.thinking)
    for token in written:
        stream.add(token)
    return stream.part, stream.thought_tokens


def room_for_answer(model: LoadedModel, prompt: Sequence[int]) -> int:
    """The number of tokens that fit into the context after a prompt, at least 1.

    Raises:
        PromptError: none fits.
    """
    room = model.context_tokens - len(prompt)
    if room < 1:
        raise PromptError(
            f"The conversation has {len(prompt):,} tokens and {model.name} reads at most "
            f"{model.context_tokens:,}, answer included; shorten it or clear the history."
        )
    return room


def _prepared(model: LoadedModel, lanes: Sequence[Lane], circuit: Circuit | None, with_prefix: bool) -> list[Prompt]:
    if not lanes:
        raise PromptError("There are no lanes; pass at least one.")
    encoded: dict[tuple[int, bool | None], Prompt] = {}
    prompts = []
    for lane in lanes:
        key = id(lane.messages), lane.thinking
        if key not in encoded:
            encoded[key] = as_prompt(model, lane.messages, with_prefix=with_prefix, thinking=lane.thinking)
        prompt = encoded[key]
        if lane.steers != "both" and prompt.thinking is None:
            raise PromptError(f"{model.name} does not think before it answers, so it has no thought to steer.")
        part, _ = part_after(model, prompt, lane.begun)
        steering = lane.changes(model, circuit)[part]
        prompts.append(replace(prompt, tokens=[*prompt.tokens, *lane.begun], steering=steering))
    return prompts

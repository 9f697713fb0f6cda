"""Inspects one token of an answer: its alternatives, the effect of steering on it, and the active neurons.

It also records the circuit's activity at every token of a text. It runs forward passes, but generates no answer.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.last_tokens import shares_prefix
from cna_core.circuits.neurons import output_tokens
from cna_core.decoding.lanes import LIKELIEST, Lane, as_prompt, end_tokens, part_after
from cna_core.decoding.reading import TokenChances
from cna_core.decoding.row_batch import RowBatch
from cna_core.decoding.session import Step
from cna_core.decoding.text_stream import AnswerStream
from cna_core.errors import CircuitError, PromptError
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.plan import SteeringPlan
from cna_core.interventions.watch import Watch, recorded_activity, recorded_neurons
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode

NEURONS_SHOWN = 8
"""The number of neurons on a card."""
TOKENS_WRITTEN = 5
"""The number of tokens listed for each neuron on a card."""


@dataclass(frozen=True)
class Alternative:
    """A possible token, with its probability after the same text in three cases.

    Args:
        token: the token's id.
        text: the token as text.
        baseline: the probability in the unsteered model.
        steered: the probability in the steered model.
        without_steering_here: the probability in the model that is steered before this token but not at it.
        ends: whether the token ends the answer.
    """

    token: int
    text: str
    baseline: float
    steered: float
    without_steering_here: float
    ends: bool


@dataclass(frozen=True)
class FiringNeuron:
    """A neuron of the circuit at one token of a text.

    Args:
        layer, neuron: the neuron's position.
        activation: the activation in the inspected lane, before steering changes it.
        baseline: the activation in the unsteered model after the same text.
        delta: δ; NaN if unknown.
        effect: the effect; None if the circuit was not found by effect.
        writes: the tokens whose logits the neuron raises most; empty if they cannot be computed (routed experts).
    """

    layer: int
    neuron: int
    activation: float
    baseline: float
    delta: float
    effect: float | None
    writes: tuple[str, ...]


@dataclass(frozen=True)
class TokenCard:
    """All results on one token of an answer.

    Args:
        place: the token's index in the answer, from 0.
        token: the token's id.
        text: the token as text.
        surprise: −ln of its probability in its own lane, in nats.
        divergence: KL(steered ‖ baseline) of the next-token distribution after the same text, in nats.
        alternatives: the likeliest tokens of the baseline and of the steered model, the likeliest in this lane first;
            they always include the chosen token.
        neurons: the circuit's neurons with the largest activations, the largest first.
    """

    place: int
    token: int
    text: str
    surprise: float
    divergence: float
    alternatives: tuple[Alternative, ...]
    neurons: tuple[FiringNeuron, ...]


@dataclass(frozen=True)
class Reading:
    """The activity and the probabilities of a text under several steerings, one per row.

    Args:
        layers: the circuit's layers, ascending.
        tokens: the text's tokens as text.
        activity: (rows, tokens, layers) float32: the circuit's activity (`Watch`) at each token, before steering
            changes it.
        logprobs: (rows, tokens) float32: ln of each token's probability given the tokens before it; NaN for the first.
        divergence: (rows, tokens) float32: the KL divergence, in nats, of the distribution that predicts each token
            from row 0's; NaN for the first token.
    """

    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    activity: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    divergence: NDArray[np.float32]


def token_card(
    model: LoadedModel,
    lane: Lane,
    written: Sequence[int],
    place: int,
    circuit: Circuit,
    *,
    beside: Lane | None = None,
    steer_prompt: bool = True,
    stop: threading.Event | None = None,
) -> TokenCard:
    """Inspect one token of a generated answer.

    Args:
        lane: the answer's lane.
        written: the token ids of the answer.
        place: the token's index in the answer, from 0.
        circuit: the circuit whose neurons are listed; also the circuit of lanes that have none of their own.
        beside: for an unsteered lane, the lane whose steering it is compared with.
        steer_prompt: the setting with which the answer was generated.

    Raises:
        PromptError: the answer has no such token.
        CircuitError: the circuit belongs to another model.
        StoppedError: `stop` was set.

    Example:
        lanes = [cna.Lane(message), cna.Lane(message, strength=1.0)]
        steps = [step for step in cna.generate(model, lanes, circuit) if step.lane == 1]
        card = token_card(model, lanes[1], [step.token_id for step in steps], 0, circuit)
    """
    if not 0 <= place < len(written):
        raise PromptError(
            f"The answer has {len(written)} tokens, so there is no token {place}; choose 0 to {len(written) - 1}."
        )
    circuit.check_model(model.identity)
    steers = lane if lane.is_steered or beside is None else beside
    prompt = [*encode(model, lane.messages, lane.thinking), *lane.begun]
    text = [*prompt, *written[:place]]
    steering, read_again = _steering_at(model, lane, steers, circuit, [*lane.begun, *written[:place]])
    steered_from = 0 if steer_prompt else max(len(prompt), len(prompt) - len(lane.begun) + read_again)
    logits, values = _at_the_end(model, text, steering, steered_from, circuit, stop)
    own = 1 if lane.is_steered else 0
    chosen = int(written[place])
    logprobs = logits.double().log_softmax(-1)
    baseline, steered = logprobs[0], logprobs[1]
    return TokenCard(
        place=place,
        token=chosen,
        text=_text(model, chosen),
        surprise=-float(logprobs[own, chosen]),
        divergence=max(0.0, float((steered.exp() * (steered - baseline)).sum())),
        alternatives=_alternatives(model, logprobs.exp(), own, chosen),
        neurons=_firing(model, circuit, values[own], values[0]),
    )


def branched(lane: Lane, written: Sequence[int], place: int, token: int) -> Lane:
    """The lane that continues from an alternative: its answer begins with `written` up to `place`, then `token`.

    This beginning is treated like the prompt, so `steer_prompt=False` does not steer it.
    """
    return replace(lane, begun=(*lane.begun, *written[:place], token))


def begun_steps(
    model: LoadedModel,
    lane: Lane,
    circuit: Circuit,
    *,
    number: int = 0,
    steer_prompt: bool = True,
    stop: threading.Event | None = None,
) -> list[Step]:
    """The tokens that a lane begins with (`Lane.begun`), as if it had written them.

    Args:
        number: the lane's place among the lanes; 0 is the baseline, whose steps have no divergence.

    Raises:
        CircuitError, StoppedError: as for `read_again`.
    """
    prompt = as_prompt(model, lane.messages, with_prefix=False, thinking=lane.thinking)
    text = [*prompt.tokens, *lane.begun]
    change, _ = _steering_at(model, lane, lane, circuit, lane.begun)
    steered_from = 0 if steer_prompt else len(text)
    reading = read_again(model, text, [NEUTRAL, change], circuit, steered_from=steered_from, stop=stop)
    stream, steps = AnswerStream(model.tokenizer, prompt.thinking), []
    for place, token in enumerate(lane.begun, len(prompt.tokens)):
        thought, words = stream.add(token)
        steps.append(
            Step(
                lane=number,
                text=words,
                token_id=token,
                finished=False,
                layer_activity=tuple(reading.activity[1, place - 1].tolist()),
                divergence=float(reading.divergence[1, place]) if number else None,
                chances=TokenChances(float(reading.logprobs[1, place])),
                thought=thought,
                in_thought=stream.in_thought,
                thought_tokens=stream.thought_tokens,
            )
        )
    return steps


def prompt_steering(model: LoadedModel, lane: Lane, circuit: Circuit | None) -> RowChange:
    """The steering with which a lane's prompt is read before anything is generated; errors as for `Lane.change`."""
    return _steering_at(model, lane, lane, circuit, lane.begun)[0]


def read_again(
    model: LoadedModel,
    tokens: Sequence[int],
    steerings: Sequence[RowChange],
    circuit: Circuit,
    *,
    steered_from: int = 0,
    stop: threading.Event | None = None,
) -> Reading:
    """Record the circuit at every token of a text, once for each steering.

    Args:
        tokens: the text, including special tokens.
        steerings: the steering of each row; divergence is measured from the first row.
        steered_from: the index of the first steered token.

    Raises:
        CircuitError: the circuit belongs to another model.
        StoppedError: `stop` was set.
    """
    watch, rows = Watch(circuit, model), list(steerings)
    both = rows * 2 if len(rows) == 1 else rows  # never a single row: bfloat16 kernels compute it differently
    parts: list[Tensor] = []
    logprobs = np.full((len(rows), len(tokens)), np.nan, dtype=np.float32)
    divergence = logprobs.copy()
    batch = RowBatch(model, stop)
    with recorded_activity(model, watch, len(both), parts):
        for start, logits in _logits(batch, tokens, both, steered_from):
            for column in range(logits.shape[1]):
                following = start + column + 1
                if following < len(tokens):
                    here = logits[: len(rows), column].double().log_softmax(-1)
                    logprobs[:, following] = here[:, tokens[following]].cpu()
                    divergence[:, following] = (here.exp() * (here - here[:1])).sum(-1).clamp(min=0).cpu()
    batch.release()
    activity = torch.cat(parts, dim=1)[: len(rows)].numpy()
    return Reading(watch.layers, tuple(_text(model, token) for token in tokens), activity, logprobs, divergence)


def _steering_at(
    model: LoadedModel, lane: Lane, steers: Lane, circuit: Circuit | None, written: Sequence[int]
) -> tuple[RowChange, int]:
    """The steering of `steers` after a generated text of `lane`, and how many of its tokens were read again with it."""
    if steers.steers == "both":
        return steers.change(model, circuit), 0
    prompt = as_prompt(model, lane.messages, with_prefix=False, thinking=lane.thinking)
    part, thought_tokens = part_after(model, prompt, written)
    return steers.changes(model, circuit)[part], thought_tokens if part == "answer" else 0


def _logits(
    batch: RowBatch, tokens: Sequence[int], steerings: Sequence[RowChange], steered_from: int
) -> list[tuple[int, Tensor]]:
    """(index of the first token, (rows, tokens, vocabulary) logits) of each forward pass over the text."""
    model, rows = batch.model, len(steerings)
    if steered_from == 0:
        return list(batch.prompt_logits([tokens] * rows, SteeringPlan(model, steerings)))
    first, rest = tokens[:steered_from], tokens[steered_from:]
    found = list(batch.prompt_logits([first] * rows, SteeringPlan(model, [NEUTRAL] * rows)))
    if not rest:
        return found
    plan = SteeringPlan(model, steerings)
    for place, token in enumerate(rest, steered_from):
        found.append((place, batch.step([token] * rows, plan)[:, None]))
    return found


def _at_the_end(
    model: LoadedModel,
    text: Sequence[int],
    steering: RowChange,
    steered_from: int,
    circuit: Circuit,
    stop: threading.Event | None,
) -> tuple[Tensor, NDArray[np.float32]]:
    """The logits after a text in three cases: unsteered, steered, and steered except at the last token.

    Returns:
        (3, vocabulary) float32 logits, and (3, circuit size) activations at the last token before they are changed.
    """
    history, last = list(text[:-1]), text[-1]
    here = steering if len(history) >= steered_from else NEUTRAL
    batch, values = RowBatch(model, stop), np.zeros((3, len(circuit)), dtype=np.float32)
    plan = SteeringPlan(model, [NEUTRAL, here, NEUTRAL])
    if not history:
        with recorded_neurons(model, circuit, values):
            logits = batch.prefill([[last]] * 3, plan)
    else:
        _read_history(batch, history, [NEUTRAL, steering], steered_from)
        batch.select([0, 1, 1])
        with recorded_neurons(model, circuit, values):
            logits = batch.step([last] * 3, plan)
    batch.release()
    return logits, values


def _read_history(batch: RowBatch, history: Sequence[int], steerings: Sequence[RowChange], steered_from: int) -> None:
    rows, plan = len(steerings), SteeringPlan(batch.model, steerings)
    cache = (
        DynamicCache() if shares_prefix(batch.model) else None
    )  # this cache keeps every token, so the text can be continued
    if steered_from == 0:
        batch.prefill([history] * rows, plan, cache)
        return
    untouched, rest = history[:steered_from], history[steered_from:]
    batch.prefill([untouched] * rows, SteeringPlan(batch.model, [NEUTRAL] * rows), cache)
    if rest and shares_prefix(batch.model):
        batch.prefill([history] * rows, plan, batch.cache, len(untouched))
    elif rest:
        for token in rest:
            batch.step([token] * rows, plan)


def _alternatives(model: LoadedModel, chances: Tensor, own: int, chosen: int) -> tuple[Alternative, ...]:
    """The likeliest tokens of the first two rows of probabilities (3, vocabulary)."""
    likeliest = chances[:2].max(0).values.topk(min(LIKELIEST, chances.shape[1])).indices.tolist()
    tokens = likeliest if chosen in likeliest else [*likeliest[:-1], chosen]
    ends = end_tokens(model)
    found = []
    for token in tokens:
        baseline, steered, not_here = chances[:, token].tolist()
        found.append(Alternative(token, _text(model, token), baseline, steered, not_here, token in ends))
    return tuple(sorted(found, key=lambda one: -(one.steered if own else one.baseline)))


def _firing(
    model: LoadedModel, circuit: Circuit, values: NDArray[np.float32], untouched: NDArray[np.float32]
) -> tuple[FiringNeuron, ...]:
    """The neurons with the largest activations; both arrays are (n,), in rank order."""
    found = []
    for rank in np.argsort(-np.abs(values), kind="stable")[:NEURONS_SHOWN].tolist():
        layer, neuron = int(circuit.layers[rank]), int(circuit.neurons[rank])
        found.append(
            FiringNeuron(
                layer=layer,
                neuron=neuron,
                activation=float(values[rank]),
                baseline=float(untouched[rank]),
                delta=float(circuit.delta[rank]),
                effect=None if circuit.effect is None else float(circuit.effect[rank]),
                writes=_written_by(model, layer, neuron),
            )
        )
    return tuple(found)


def _written_by(model: LoadedModel, layer: int, neuron: int) -> tuple[str, ...]:
    try:
        return tuple(token for token, _ in output_tokens(model, layer, neuron, TOKENS_WRITTEN).up)
    except CircuitError:
        return ()


def _text(model: LoadedModel, token: int) -> str:
    return str(model.tokenizer.decode([token]))

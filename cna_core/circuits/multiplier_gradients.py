"""Gradients of a number computed from the logits by every neuron's multiplier, in one forward and backward pass.

The multipliers are a leaf tensor with one row for each row of the batch. They go through the same hook as steering, and
autograd differentiates by them. Rows are padded on the right: attention only looks back, so padding does not affect a
row and gets no gradient. The head runs only at the tokens that are needed. The common beginning of all rows runs
forward once, and backward for each row (shared_gradients.py).
"""

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cna_core.circuits.prefix import Prefix
from cna_core.circuits.shared_gradients import SharedTokens, can_share
from cna_core.errors import CircuitError, ModelError
from cna_core.models.layers import NeuronView, text_decoder
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped
from cna_core.prompts.chat_format import shared_prefix_length


@dataclass(frozen=True)
class Line:
    """One row of tokens, which gives a number R.

    Args:
        tokens: the prompt.
        answer: if empty, R is the log-odds of a refusal opening as the next token. Otherwise these tokens follow the
            prompt, and R is their mean log-probability. In a batch, all lines have an answer or none.
    """

    tokens: tuple[int, ...]
    answer: tuple[int, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens that the model reads: the prompt, and the answer without its last token."""
        return self.tokens + self.answer[:-1]


@dataclass(frozen=True)
class Readings:
    """The results of a batch of lines.

    Args:
        gradients: (lines, measured neurons) float32 on the CPU: ∂R/∂m of the neurons of the first layers.
        values: (lines,) float32 on the CPU: R.
        neurons: (lines, total neurons) on the CPU in the model's dtype: every neuron at the prompt's last token, before
            it is multiplied.
    """

    gradients: Tensor
    values: Tensor
    neurons: Tensor


def log_odds(logits: Tensor, openings: Sequence[int]) -> Tensor:
    """logsumexp of the logits of the opening tokens minus logsumexp of all others.

    Args:
        logits: (…, vocabulary).
        openings: token ids.

    Returns:
        (…) float32.
    """
    logits = logits.float()
    chosen = torch.tensor(list(openings), device=logits.device)
    others = logits.index_fill(-1, chosen, -torch.inf)
    return logits[..., chosen].logsumexp(-1) - others.logsumexp(-1)


def multiplier_gradients(
    model: LoadedModel,
    lines: Sequence[Line],
    layers: int,
    openings: Sequence[int],
    *,
    level: float = 1.0,
    last_only: bool = False,
    stop: threading.Event | None = None,
) -> Readings:
    """∂R/∂m of every neuron of the first layers on each line, m being the neuron's own multiplier on that line.

    Args:
        layers: the number of first layers to measure.
        openings: ids of the tokens that open refusals.
        level: the multiplier of all neurons of these layers at which the gradient is taken.
        last_only: multiply only at the last token of the prompt, not at every token.
        stop: checked between layers, forward and backward.

    Raises:
        CircuitError: R or a gradient is not finite.
        StoppedError: `stop` was set.
    """
    length = shared_prefix_length([line.tokens for line in lines]) if can_share(model) and len(lines) > 1 else 0
    ends = torch.tensor([len(line.tokens) - 1 - length for line in lines])
    leaves = _leaves(model, layers, len(lines), level)
    with torch.inference_mode(False), torch.enable_grad():
        shared = None
        if length:
            shared_leaves = [] if last_only else _leaves(model, layers, 1, level)
            with _multiplied(model, shared_leaves, torch.tensor([length - 1]), False, stop):
                shared = SharedTokens.read(model, lines[0].tokens[:length], shared_leaves, len(lines))
        with _multiplied(model, leaves, ends, last_only, stop) as neurons:
            values = _pass(model, lines, openings, shared.prefix if shared else None)
        found = torch.autograd.grad(values.sum(), [*leaves, *(shared.inputs if shared else ())])
        gradients = torch.cat([part.cpu() for part in found[:layers]], dim=1)
        if shared and shared.inputs:
            gradients += shared.gradients(found[layers:], stop)
    readings = Readings(gradients, values.detach().cpu(), torch.cat([part.cpu() for part in neurons], dim=1))
    if not (readings.values.isfinite().all() and readings.gradients.isfinite().all()):
        raise CircuitError(f"Some effects of {model.name} are not finite; load it in bfloat16 or float32.")
    return readings


@torch.no_grad()
def numbers_read(model: LoadedModel, lines: Sequence[Line], openings: Sequence[int]) -> Tensor:
    """(lines,) float32 on the CPU: R of each line for the model as it is, steered or not."""
    return _pass(model, lines, openings).cpu()


def _leaves(model: LoadedModel, layers: int, rows: int, level: float) -> list[Tensor]:
    """Multipliers (rows, width) float32 of each of the first layers."""
    return [
        torch.full((rows, layer.width), level, device=model.device, requires_grad=True)
        for layer in model.neuron_layers[:layers]
    ]


def _pass(model: LoadedModel, lines: Sequence[Line], openings: Sequence[int], prefix: Prefix | None = None) -> Tensor:
    """(lines,) float32: R of each line, from one forward pass over what follows the prefix."""
    before = prefix.length if prefix else 0
    rows = [line.read[before:] for line in lines]
    width, padding = max(map(len, rows)), model.tokenizer.pad_token_id or 0
    tokens = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    named: dict[str, Any] = {"use_cache": False}
    if prefix:
        lengths = torch.tensor([len(line.read) for line in lines])
        named = {"use_cache": True, "past_key_values": prefix.cache(len(lines))}
        named["attention_mask"] = (torch.arange(before + width) < lengths[:, None]).long().to(model.device)
        if "position_ids" in inspect.signature(model.network.forward).parameters:
            positions = torch.arange(before, before + width, device=model.device)
            named["position_ids"] = positions.expand(len(lines), -1)
    with _head_reads_only(model, _read_positions(lines) - before):
        logits = model.network(input_ids=tokens.to(model.device), **named).logits
    return _numbers_read(logits, lines, openings)


def _read_positions(lines: Sequence[Line]) -> Tensor:
    """(lines, most positions) int64: where logits are read; lines that need fewer positions repeat their last."""
    count = max(max(1, len(line.answer)) for line in lines)
    starts = torch.tensor([len(line.tokens) - 1 for line in lines])
    ends = torch.tensor([len(line.read) - 1 for line in lines])
    return torch.minimum(starts[:, None] + torch.arange(count), ends[:, None])


def _numbers_read(logits: Tensor, lines: Sequence[Line], openings: Sequence[int]) -> Tensor:
    """(lines,) float32: each line's R from logits (lines, tokens read, vocabulary)."""
    if not any(line.answer for line in lines):
        return log_odds(logits[:, 0], openings)
    values = []
    for row, line in zip(logits, lines, strict=True):
        answer = torch.tensor(line.answer, device=row.device)
        likelihoods = row[: len(line.answer)].float().log_softmax(-1)
        values.append(likelihoods.gather(1, answer[:, None]).mean())
    return torch.stack(values)


@contextlib.contextmanager
def _multiplied(
    model: LoadedModel, leaves: Sequence[Tensor], ends: Tensor, last_only: bool, stop: threading.Event | None
) -> Iterator[list[Tensor]]:
    """A context in which a pass multiplies the first layers' neurons by the leaves; `stop` ends it between layers.

    Yields each layer's neurons at token `ends[r]` of row r, (rows, width), filled during the pass.
    """
    seen: dict[int, Tensor] = {}
    recorded: list[Tensor] = []

    def visit(index: int, view: NeuronView) -> None:
        raise_if_stopped(stop)
        part = view.at(ends).detach()
        seen[index] = seen[index] + part if index in seen else part
        recorded[:] = [seen[layer] for layer in sorted(seen)]
        if index < len(leaves):
            view.multiply(leaves[index], ends if last_only else None)

    for leaf in leaves:
        leaf.register_hook(lambda _gradient: raise_if_stopped(stop))  # the hook lives as long as the leaf
    with contextlib.ExitStack() as stack:
        for index, layer in enumerate(model.neuron_layers):
            stack.callback(layer.attach(functools.partial(visit, index), len(ends)).remove)
        yield recorded


@contextlib.contextmanager
def _head_reads_only(model: LoadedModel, positions: Tensor) -> Iterator[None]:
    """A context in which the decoder passes on its last hidden states only at these positions (rows, n).

    So the head computes no other logits, whatever a model family's head does besides its matrix (scales, soft caps).
    """

    def after_decoder(_module: nn.Module, _inputs: object, output: object) -> object:
        hidden = output[0]  # type: ignore[index]
        rows, device = torch.arange(len(positions))[:, None], hidden.device
        chosen = hidden[rows.to(device), positions.to(device)]
        if isinstance(output, tuple):
            return (chosen, *output[1:])
        if not hasattr(output, "last_hidden_state"):
            raise ModelError(f"The family of {model.name} is not supported: its decoder returns no last hidden states.")
        output.last_hidden_state = chosen
        return output

    handle = text_decoder(model.network).register_forward_hook(after_decoder)
    try:
        yield
    finally:
        handle.remove()

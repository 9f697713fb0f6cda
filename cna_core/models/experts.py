"""Layers of routed experts: the neurons of all experts on one axis, followed by those of the shared expert.

Neuron j of expert e is neuron e · (neurons per expert) + j of the layer, and 0 at tokens not routed to e. The experts'
weights are fused tensors without a Linear to hook. But every implementation in transformers applies their
activation function through one method, on all routed (token, expert) pairs at once, and the order of the pairs follows
from the routing.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cna_core.errors import ModelError
from cna_core.models.neurons import DenseLayer, Handles, NeuronView, Removable, Visit


@dataclass
class ExpertsView:
    """The routed experts' neurons in one forward pass: one row for each (token, expert) pair.

    Args:
        neurons: (pairs, width) the neurons of the pair's expert.
        experts, tokens: (pairs,) int64: the pair's expert, and its token in the flattened batch.
        shape: (rows, tokens per row).
        count: the number of experts.
    """

    neurons: Tensor
    experts: Tensor
    tokens: Tensor
    shape: tuple[int, int]
    count: int

    def at(self, positions: Tensor) -> Tensor:
        rows, length = self.shape
        device = self.tokens.device
        wanted = torch.arange(rows, device=device) * length + positions.to(device)  # of the flattened batch
        places = torch.full((rows * length,), -1, device=device)
        places[wanted] = torch.arange(len(wanted), device=device)
        found = places[self.tokens]
        neurons = self.neurons.new_zeros(len(wanted), self.count, self.neurons.shape[1])
        neurons[found[found >= 0], self.experts[found >= 0]] = self.neurons[found >= 0]
        return neurons.flatten(1)

    def of(self, neurons: Tensor) -> Tensor:
        neurons = neurons.to(self.tokens.device)
        width = self.neurons.shape[1]
        mine = self.experts[:, None] == neurons // width  # (pairs, n)
        chosen = self.neurons[:, neurons % width] * mine
        found = chosen.new_zeros(self.shape[0] * self.shape[1], len(neurons))
        return found.index_add_(0, self.tokens, chosen).reshape(*self.shape, -1)

    def multiply(self, multipliers: Tensor, positions: Tensor | None = None) -> None:
        multiplied = self.neurons * self._of_pairs(multipliers)
        if positions is not None:
            here = positions.to(self.tokens.device)[self.tokens // self.shape[1]] == self.tokens % self.shape[1]
            multiplied = torch.where(here[:, None], multiplied, self.neurons)
        self.neurons = multiplied

    def add(self, additions: Tensor) -> None:
        self.neurons = self.neurons + self._of_pairs(additions)

    def _of_pairs(self, table: Tensor) -> Tensor:
        """(pairs, width) from a table (rows, width of all experts); a table of one row applies to all rows."""
        by_expert = table.to(self.neurons).reshape(len(table), self.count, -1)
        rows = self.tokens // self.shape[1] if len(table) > 1 else torch.zeros_like(self.tokens)
        return by_expert[rows, self.experts]


class GateProbe(nn.Module):
    """Replaces the activation function of an experts module, so that ordinary hooks can see its output."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, gate_up: Tensor) -> Tensor:
        return self.gate(gate_up)


@dataclass(frozen=True)
class RoutedExperts:
    """The routed experts of one layer.

    Args:
        experts: the module that holds their fused weights.
        count: the number of experts.
        width: neurons in each expert.
    """

    experts: nn.Module
    count: int
    width: int

    @property
    def total(self) -> int:
        return self.count * self.width

    def attach(self, visit: Visit, rows: int) -> Removable:
        routing: list[Tensor] = []

        def before_experts(_module: nn.Module, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> None:
            routing[:] = [inputs[1] if len(inputs) > 1 else named["top_k_index"]]

        def after_gate(_module: nn.Module, _inputs: object, neurons: Tensor) -> Tensor:
            chosen = routing[0]
            ids = chosen.reshape(-1)
            # "grouped_mm" sorts the pairs by expert, with this same call; "batched_mm" leaves them in order.
            experts, order = torch.sort(ids) if self._sorts_pairs else (ids, torch.arange(len(ids), device=ids.device))
            view = ExpertsView(neurons, experts, order // chosen.shape[-1], (rows, chosen.shape[0] // rows), self.count)
            visit(view)
            return view.neurons

        return Handles(
            [
                self.experts.register_forward_pre_hook(before_experts, with_kwargs=True),
                self._probe.register_forward_hook(after_gate),
            ]
        )

    @property
    def _sorts_pairs(self) -> bool:
        implementation = self.experts.config._experts_implementation  # type: ignore[union-attr]
        if implementation not in ("grouped_mm", "batched_mm"):
            raise ModelError(
                f"The routed experts use the implementation '{implementation}', in which their neurons cannot be read: "
                "load the model with experts_implementation='grouped_mm'."
            )
        return implementation == "grouped_mm"

    @property
    def _probe(self) -> nn.Module:
        if not getattr(self.experts, "has_gate", True):
            return self.experts.act_fn  # type: ignore[return-value]
        probe = self.experts.__dict__.get("_apply_gate")
        if not isinstance(probe, GateProbe):
            probe = GateProbe(self.experts._apply_gate)  # type: ignore[arg-type]
            # In the instance's own dictionary: as a submodule it would not override the class's method.
            object.__setattr__(self.experts, "_apply_gate", probe)
        return probe


@dataclass(frozen=True)
class MixtureLayer:
    """A layer of routed experts, and optionally a dense part (shared experts or a parallel MLP)."""

    index: int
    routed: RoutedExperts
    dense: DenseLayer | None = None

    @property
    def width(self) -> int:
        return self.routed.total + (self.dense.width if self.dense else 0)

    def attach(self, visit: Visit, rows: int) -> Removable:
        boundary = self.routed.total
        handles = [self.routed.attach(functools.partial(self._visit_part, visit, 0, boundary), rows)]
        if self.dense is not None:
            handles.append(self.dense.attach(functools.partial(self._visit_part, visit, boundary, self.width), rows))
        return Handles(handles)

    def _visit_part(self, visit: Visit, start: int, end: int, view: NeuronView) -> None:
        visit(view if (start, end) == (0, self.width) else _PartView(view, start, end, self.width))


@dataclass
class _PartView:
    """A part of a layer on the whole layer's axis: its neurons are `start` to `end` of `width`."""

    part: NeuronView
    start: int
    end: int
    width: int

    def at(self, positions: Tensor) -> Tensor:
        return nn.functional.pad(self.part.at(positions), (self.start, self.width - self.end))

    def of(self, neurons: Tensor) -> Tensor:
        inside = (neurons >= self.start) & (neurons < self.end)
        found = self.part.of(torch.where(inside, neurons - self.start, 0))
        return found * inside.to(found.device)

    def multiply(self, multipliers: Tensor, positions: Tensor | None = None) -> None:
        self.part.multiply(multipliers[:, self.start : self.end], positions)

    def add(self, additions: Tensor) -> None:
        self.part.add(additions[:, self.start : self.end])

"""One layer's neurons in a running model: reading and changing them, and dense layers with one down projection.

Layers of routed experts are in experts.py. layers.py finds all layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class NeuronView(Protocol):
    """One layer's neurons during one forward pass, just before the down projection reads them.

    A layer with several parts (routed experts and a shared expert) has one view for each part in the same pass. `at`
    and `of` are 0 for neurons of other parts, so the sum over a pass's views is complete. `multiply` takes the whole
    layer's table and changes this part.
    """

    def at(self, positions: Tensor) -> Tensor:
        """(rows, width) in the model's dtype: row r's neurons at token `positions[r]`; `positions` is (rows,) int64.

        In a pass of a single row, `positions` may be several different positions (n,); the result is (n, width).
        """

    def of(self, neurons: Tensor) -> Tensor:
        """(rows, tokens, n) in the model's dtype: the given neurons (n,) int64 at every token."""

    def multiply(self, multipliers: Tensor, positions: Tensor | None = None) -> None:
        """Multiply every neuron by its row's multiplier, at every token or only at token `positions[r]` of row r.

        `multipliers` is (rows, width), `positions` is (rows,) int64. Gradients flow into `multipliers`.
        """

    def add(self, additions: Tensor) -> None:
        """Add its row's addition to every neuron at every token; `additions` is (rows, width).

        For a routed expert's neurons, only at the tokens that are routed to it.
        """


Visit = Callable[[NeuronView], None]


class Removable(Protocol):
    """The handle of an attached hook."""

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""


class Handles:
    """Several handles as one."""

    def __init__(self, handles: Sequence[Removable]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class NeuronLayer(Protocol):
    """The neurons of one layer of a loaded model."""

    @property
    def index(self) -> int:
        """The layer's index in the decoder, from 0."""

    @property
    def width(self) -> int:
        """The number of neurons."""

    def attach(self, visit: Visit, rows: int) -> Removable:
        """Call `visit` in every forward pass of `rows` sequences, until the handle is removed."""


@dataclass
class DenseView:
    neurons: Tensor  # (rows, tokens, width)

    def at(self, positions: Tensor) -> Tensor:
        positions = positions.to(self.neurons.device)
        return self.neurons[torch.arange(len(self.neurons), device=positions.device), positions]

    def of(self, neurons: Tensor) -> Tensor:
        return self.neurons[..., neurons.to(self.neurons.device)]

    def multiply(self, multipliers: Tensor, positions: Tensor | None = None) -> None:
        multiplied = self.neurons * multipliers.to(self.neurons)[:, None, :]
        if positions is not None:
            here = torch.arange(self.neurons.shape[1]) == positions[:, None].cpu()  # (rows, tokens)
            multiplied = torch.where(here[..., None].to(self.neurons.device), multiplied, self.neurons)
        self.neurons = multiplied

    def add(self, additions: Tensor) -> None:
        self.neurons = self.neurons + additions.to(self.neurons)[:, None, :]


@dataclass(frozen=True)
class DenseLayer:
    """A layer whose neurons are the input of one Linear (or Conv1D) module."""

    index: int
    width: int
    down_projection: nn.Module
    up_projections: tuple[nn.Module, ...] = ()
    """The modules that compute the neurons token by token: gate and up projection, or both fused."""

    def attach(self, visit: Visit, rows: int) -> Removable:
        def before_down_projection(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            neurons = inputs[0]
            view = DenseView(neurons.reshape(rows, -1, self.width))  # OPT passes (rows · tokens, width)
            visit(view)
            return (view.neurons.reshape(neurons.shape), *inputs[1:])

        return self.down_projection.register_forward_pre_hook(before_down_projection)

    def only_at(self, positions: Tensor) -> Removable:
        """Until the handle is removed, compute the neurons only at these tokens (n,), in passes of a single row.

        The layer's output is then only for these tokens, so later layers cannot use it.
        """

        def before_up_projection(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = inputs[0]
            return (hidden.index_select(-2, positions.to(hidden.device)), *inputs[1:])

        return Handles([module.register_forward_pre_hook(before_up_projection) for module in self.up_projections])

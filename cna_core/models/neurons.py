"""One layer's neurons in a running model: how they are seen and changed, and the layer with one down projection.

Knows nothing about prompts, circuits or what a multiplier means. Layers of routed experts are in experts.py, finding
them all in layers.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class NeuronView(Protocol):
    """One layer's neurons during one forward pass, just before the down projection reads them.

    A layer of several parts (routed experts and a shared one) shows each part in a view of its own, all in the same
    pass: `at` and `of` are 0 where a neuron is not in this part, so what a pass shows is the sum over its views, and
    `multiply` with the whole layer's table changes each part as it comes by.
    """

    def at(self, positions: Tensor) -> Tensor:
        """(rows, width), the model's dtype: row r's neurons at token `positions[r]`; `positions` is (rows,) int64.

        In a pass of a lone row, several positions (n,) of it may be named, each once; then (n, width) comes back.
        """

    def of(self, neurons: Tensor) -> Tensor:
        """(rows, tokens, n) in the model's dtype: the named neurons (n,) int64 at every token."""

    def multiply(self, multipliers: Tensor, positions: Tensor | None = None) -> None:
        """Multiply every neuron by its row's multiplier, at every token or at token `positions[r]` of row r alone.

        `multipliers` is (rows, width), `positions` (rows,) int64. Gradients flow into `multipliers`.
        """

    def add(self, additions: Tensor) -> None:
        """Add to every neuron at every token its row's addition; `additions` is (rows, width).

        A routed expert's neurons are added to at the tokens that are routed to it.
        """


Visit = Callable[[NeuronView], None]


class Removable(Protocol):
    """What a hook leaves in the hand that attached it."""

    def remove(self) -> None:
        """Take the hook off; a second time does nothing."""


class Handles:
    """Several handles in one."""

    def __init__(self, handles: Sequence[Removable]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class NeuronLayer(Protocol):
    """The neurons of one layer of a loaded model."""

    @property
    def index(self) -> int:
        """Which layer of the decoder, the first is 0."""

    @property
    def width(self) -> int:
        """How many neurons it has."""

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
    """What makes the neurons, token by token: gate and up, or both in one."""

    def attach(self, visit: Visit, rows: int) -> Removable:
        def before_down_projection(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            neurons = inputs[0]
            view = DenseView(neurons.reshape(rows, -1, self.width))  # OPT hands over (rows · tokens, width)
            visit(view)
            return (view.neurons.reshape(neurons.shape), *inputs[1:])

        return self.down_projection.register_forward_pre_hook(before_down_projection)

    def only_at(self, positions: Tensor) -> Removable:
        """Until the handle is removed, compute the neurons of passes of a lone row at these tokens (n,) alone.

        The layer's neurons are then those tokens' only, and what the layer adds to the residual stream is of no use.
        """

        def before_up_projection(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = inputs[0]
            return (hidden.index_select(-2, positions.to(hidden.device)), *inputs[1:])

        return Handles([module.register_forward_pre_hook(before_up_projection) for module in self.up_projections])

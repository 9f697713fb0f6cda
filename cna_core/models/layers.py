"""Where a model's neurons are: finds every layer's MLP down projection and lets others see and change its input.

Knows nothing about prompts, circuits or multipliers' meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cna_core.errors import ModelError


class NeuronView(Protocol):
    """One layer's neurons during one forward pass, just before the down projection reads them."""

    def at(self, positions: Tensor) -> Tensor:
        """(rows, width) in the model's dtype: the neurons of row r at token `positions[r]`; `positions` is (rows,) int64."""

    def of(self, neurons: Tensor) -> Tensor:
        """(rows, tokens, n) in the model's dtype: the named neurons (n,) int64 at every token."""

    def multiply(self, multipliers: Tensor) -> None:
        """Multiply every neuron at every token by its row's multiplier; `multipliers` is (rows, width)."""


Visit = Callable[[NeuronView], None]


class NeuronLayer(Protocol):
    """The neurons of one layer of a loaded model."""

    @property
    def index(self) -> int:
        """Which layer of the decoder, the first is 0."""

    @property
    def width(self) -> int:
        """How many neurons it has."""

    def attach(self, visit: Visit, rows: int) -> RemovableHandle:
        """Call `visit` in every forward pass of `rows` sequences, until the handle is removed."""


@dataclass
class DenseView:
    neurons: Tensor  # (rows, tokens, width)

    def at(self, positions: Tensor) -> Tensor:
        positions = positions.to(self.neurons.device)
        return self.neurons[torch.arange(len(self.neurons), device=positions.device), positions]

    def of(self, neurons: Tensor) -> Tensor:
        return self.neurons[..., neurons.to(self.neurons.device)]

    def multiply(self, multipliers: Tensor) -> None:
        self.neurons = self.neurons * multipliers.to(self.neurons)[:, None, :]


@dataclass(frozen=True)
class DenseLayer:
    """A layer whose neurons are the input of one Linear (or Conv1D) module."""

    index: int
    width: int
    down_projection: nn.Module

    def attach(self, visit: Visit, rows: int) -> RemovableHandle:
        def before_down_projection(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            neurons = inputs[0]
            view = DenseView(neurons.reshape(rows, -1, self.width))  # OPT hands over (rows · tokens, width)
            visit(view)
            return (view.neurons.reshape(neurons.shape), *inputs[1:])

        return self.down_projection.register_forward_pre_hook(before_down_projection)


def text_decoder(network: nn.Module) -> nn.Module:
    """The module that turns token ids into final hidden states: no LM head, no vision or audio tower."""
    return network.get_decoder()  # type: ignore[operator]


def find_neuron_layers(model: nn.Module) -> tuple[NeuronLayer, ...]:
    """Every layer's neurons, first layer first.

    Raises:
        ModelError: the architecture has no MLP down projection that can be hooked.
    """
    layers: list[NeuronLayer] = []
    for index, layer in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
        down_projection = layer.mlp.down_proj
        layers.append(DenseLayer(index, down_projection.in_features, down_projection))
    if not layers:
        raise ModelError("This architecture has no MLP down projection to read neurons from; choose a dense decoder model.")
    return tuple(layers)

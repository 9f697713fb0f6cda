"""Where a model's residual stream is: the decoder layers, whose outputs carry it from one layer to the next.

Knows architectures; knows no neurons and no steering.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from cna_core.errors import ModelError


def decoder_layers(network: PreTrainedModel) -> tuple[nn.Module, ...]:
    """The decoder's layers, first layer first.

    Raises:
        ModelError: no list of as many layers as the configuration names was found.
    """
    text_config = network.config.get_text_config(decoder=True)
    count = int(text_config.num_hidden_layers)
    decoder = network.get_decoder() if hasattr(network, "get_decoder") else network
    for place in (decoder, network):
        for name, module in place.named_modules():
            other_tower = any(word in name for word in ("vision", "audio", "encoder."))
            if isinstance(module, nn.ModuleList) and len(module) == count and not other_tower:
                return tuple(module)
    raise ModelError("This architecture's decoder layers were not found; choose a dense decoder model.")


def mlp_of(layer: nn.Module) -> nn.Module:
    """The module whose output is the layer's MLP output: the last direct child that is named as one.

    Raises:
        ModelError: there is none.
    """
    for name, child in reversed(list(layer.named_children())):
        if name in ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2"):
            return child
    raise ModelError("This architecture's MLP output was not found; contrastive activation addition needs it.")


def add_to_output(layer: nn.Module, additions: Tensor) -> RemovableHandle:
    """Add to a decoder layer's output at every token until the handle is removed; `additions` is (rows, hidden)."""

    def after_layer(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (_added(output[0], additions), *output[1:])
        return _added(output, additions)

    return layer.register_forward_hook(after_layer)


def on_output(module: nn.Module, visit: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `visit` with the module's output (rows, tokens, hidden) in every pass until the handle is removed."""

    def after(_module: nn.Module, _inputs: object, output: Tensor | Sequence[Tensor]) -> None:
        visit(output if isinstance(output, torch.Tensor) else output[0])

    return module.register_forward_hook(after)


def _added(hidden: Tensor, additions: Tensor) -> Tensor:
    return hidden + additions.to(hidden)[:, None, :]

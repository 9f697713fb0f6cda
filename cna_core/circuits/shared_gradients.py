"""Tokens that all rows of a batch begin with, in a pass whose gradients are wanted: read once, differentiated by row.

Forward they run in one row, and the batch reads their keys and values. Backward each row brings gradients of its own to
those, and a backward pass over the one row carries all of them at once (`is_grads_batched`): what is linear in a
gradient becomes one larger multiplication. Knows keys, values and leaves; knows nothing about lines and what is read.
"""

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from cna_core.circuits.last_tokens import shares_prefix
from cna_core.circuits.prefix import Prefix
from cna_core.errors import ModelError
from cna_core.models.layers import DenseLayer, text_decoder
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped


def can_share(model: LoadedModel) -> bool:
    """Whether what rows begin with can be read once: keys and values are all it leaves behind, and its backward pass
    can carry several gradients at once.

    Not so with routed experts, whose tokens are sorted by what they hold; nor with quantised weights, whose kernels
    know no such pass; and with offloaded weights two passes would fetch them twice.
    """
    dense = all(isinstance(layer, DenseLayer) for layer in model.neuron_layers)
    quantised = getattr(model.network.config, "quantization_config", None) is not None
    offloaded = any(weight.is_meta for weight in model.network.parameters())
    return dense and shares_prefix(model) and not quantised and not offloaded


@dataclass(frozen=True)
class SharedTokens:
    """What the rows begin with, after a pass that is recorded for gradients.

    Args:
        prefix: its keys and values in each layer, (rows, heads, tokens, size), cut off from the pass that made them.
        inputs: those of them through which gradients flow back.
        outputs: the same as the pass made them, (1, heads, tokens, size).
        leaves: the multipliers (1, width) of each measured layer.
    """

    prefix: Prefix
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]

    @classmethod
    def read(cls, model: LoadedModel, tokens: Sequence[int], leaves: Sequence[Tensor], rows: int) -> "SharedTokens":
        """Read the tokens for a batch of `rows`, while the leaves are hooked on; without leaves no gradients flow.

        Raises:
            ModelError: a layer keeps something else than keys and values.
        """
        decoder, cache = text_decoder(model.network), DynamicCache()
        inputs: dict[str, Any] = {"input_ids": torch.tensor([list(tokens)], device=model.device)}
        if "position_ids" in inspect.signature(decoder.forward).parameters:
            inputs["position_ids"] = torch.arange(len(tokens), device=model.device)[None]
        # The fused kernels of attention have no backward pass for several gradients at once.
        with sdpa_kernel(SDPBackend.MATH), torch.set_grad_enabled(bool(leaves)):
            decoder(**inputs, use_cache=True, past_key_values=cache)
        layers: list[Any] = cache.layers
        if [layer.get_seq_length() for layer in layers] != [len(tokens)] * model.layout.layers:
            raise ModelError(f"{model.name} keeps a state that prompts cannot share; its family is not supported yet.")
        pairs = [(layer.keys, layer.values) for layer in layers]
        cut = [tuple(_cut(tensor, rows) for tensor in pair) for pair in pairs]
        prefix = Prefix(len(tokens), tuple(cut))  # type: ignore[arg-type]
        flowing = [
            (given, made)
            for pair, made_pair in zip(cut, pairs, strict=True)
            for given, made in zip(pair, made_pair, strict=True)
            if given.requires_grad
        ]
        return cls(prefix, tuple(given for given, _ in flowing), tuple(made for _, made in flowing), tuple(leaves))

    def gradients(self, by_row: Sequence[Tensor], stop: threading.Event | None = None) -> Tensor:
        """(rows, measured neurons) float32 on the CPU: what flows back through these tokens to the multipliers.

        Args:
            by_row: the gradients of `inputs`, of the same shapes.
        """
        raise_if_stopped(stop)
        found = torch.autograd.grad(
            self.outputs,
            self.leaves,
            [gradient[:, None] for gradient in by_row],
            is_grads_batched=True,
            allow_unused=True,  # nothing reads what the last layer writes at these tokens
        )
        rows = len(by_row[0])
        parts = [
            torch.zeros(rows, leaf.shape[1]) if part is None else part[:, 0].cpu()
            for part, leaf in zip(found, self.leaves, strict=True)
        ]
        return torch.cat(parts, dim=1)


def _cut(tensor: Tensor, rows: int) -> Tensor:
    """The same for each row, with gradients that end here."""
    return tensor.detach().expand(rows, -1, -1, -1).requires_grad_(tensor.requires_grad)

"""The common beginning of all rows in a pass with gradients: run forward once, and differentiated for each row.

Forward, these tokens run in one row, and the batch reads their keys and values. Backward, each row has its own
gradients for those, and one backward pass over the single row carries all of them at once (`is_grads_batched`), because
it is linear in the gradient.
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
    """Whether the common beginning of rows can run once: its state is only keys and values, and its backward pass can
    carry several gradients at once.

    This excludes routed experts, whose tokens are sorted by content; quantised weights, whose kernels do not support
    such a pass; and offloaded weights, which two passes would load twice.
    """
    dense = all(isinstance(layer, DenseLayer) for layer in model.neuron_layers)
    quantised = getattr(model.network.config, "quantization_config", None) is not None
    offloaded = any(weight.is_meta for weight in model.network.parameters())
    return dense and shares_prefix(model) and not quantised and not offloaded


@dataclass(frozen=True)
class SharedTokens:
    """The common beginning of the rows, after a pass that is recorded for gradients.

    Args:
        prefix: its keys and values in each layer, (rows, heads, tokens, size), detached from the pass that made them.
        inputs: those of them through which gradients flow back.
        outputs: the same tensors from the pass itself, (1, heads, tokens, size).
        leaves: the multipliers (1, width) of each measured layer.
    """

    prefix: Prefix
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]

    @classmethod
    def read(cls, model: LoadedModel, tokens: Sequence[int], leaves: Sequence[Tensor], rows: int) -> "SharedTokens":
        """Run the tokens for a batch of `rows`, with the leaves hooked on; without leaves no gradients flow.

        Raises:
            ModelError: a layer has another state than keys and values.
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
            raise ModelError(f"The family of {model.name} is not supported: its prompts cannot share a prefix.")
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
        """(rows, measured neurons) float32 on the CPU: the gradients of the multipliers through these tokens.

        Args:
            by_row: the gradients of `inputs`, of the same shapes.
        """
        raise_if_stopped(stop)
        found = torch.autograd.grad(
            self.outputs,
            self.leaves,
            [gradient[:, None] for gradient in by_row],
            is_grads_batched=True,
            allow_unused=True,  # nothing reads the last layer's output at these tokens
        )
        rows = len(by_row[0])
        parts = [
            torch.zeros(rows, leaf.shape[1]) if part is None else part[:, 0].cpu()
            for part, leaf in zip(found, self.leaves, strict=True)
        ]
        return torch.cat(parts, dim=1)


def _cut(tensor: Tensor, rows: int) -> Tensor:
    """The tensor for each row, detached, so that gradients end here."""
    return tensor.detach().expand(rows, -1, -1, -1).requires_grad_(tensor.requires_grad)

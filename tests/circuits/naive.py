"""The definition, worked slowly: what capture must agree with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode


def naive_values(model: LoadedModel, prompts: Sequence[str]) -> Tensor:
    """(prompts, total): one prompt at a time, no padding, no cache, the whole model with its head."""
    seen: list[Tensor] = []

    def note_last_token(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].reshape(-1, inputs[0].shape[-1])[-1])

    handles = [layer.down_projection.register_forward_pre_hook(note_last_token) for layer in model.neuron_layers]
    rows = []
    try:
        for prompt in prompts:
            seen.clear()
            with torch.no_grad():
                model.network(torch.tensor([encode(model, prompt)]), use_cache=False)
            rows.append(torch.cat(seen))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)

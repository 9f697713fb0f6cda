"""Claims about the residual stream's writes: found in 16 bits too, also where a few tokens dwarf all others."""

import pytest
import torch

from cna_core.models.loaded import LoadedModel
from cna_core.models.residual_stream import find_residual_writes
from tests.tiny import tiny_llama


def writers(model: LoadedModel) -> list[str]:
    names = {module: name for name, module in model.network.named_modules()}
    return sorted(names[module] for module in find_residual_writes(model.network, model.device).writers)


EVERY_LAYERS = sorted(f"model.layers.{layer}.{part}" for layer in range(4) for part in ("self_attn", "mlp"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_mlp_write_in_every_layer_of_a_llama(dtype: torch.dtype) -> None:
    model = tiny_llama()
    model.network.to(dtype)
    assert writers(model) == EVERY_LAYERS


def test_a_token_with_a_huge_residual_stream_does_not_hide_the_writes() -> None:
    """As the first token of many models has; what is added to it is lost in its rounding."""
    model = tiny_llama()
    with torch.no_grad():
        model.network.model.embed_tokens.weight[1] *= 3000
    model.network.to(torch.bfloat16)
    assert writers(model) == EVERY_LAYERS

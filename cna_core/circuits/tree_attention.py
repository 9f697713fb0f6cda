"""Attention within a tree of tokens, block by block.

A token of a tree looks at its own ancestors alone, so that most of the square of scores that a mask covers is computed
for nothing. Tokens that stand near each other share their ancestors: a block of them is given the keys that any of
them sees, and the rest is left out. Each block is computed by transformers' own attention. Knows masks; knows nothing
about token ids.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

BLOCK_TOKENS = 64
"""Queries in a block: fewer make more calls, more see more keys that only some of them need."""
_NAME = "tree_of_tokens"
_WHOLE = "sdpa"


@contextmanager
def attention_by_blocks(network: PreTrainedModel) -> Iterator[None]:
    """While this is open, the network leaves out of attention what its mask hides from whole blocks of tokens.

    Networks whose attention cannot be chosen, or is not torch's own, stay as they are. The caller has the network to
    itself.
    """
    before = network.config.get_text_config(decoder=True)._attn_implementation
    if before != _WHOLE or not network._can_set_attn_implementation():
        yield
        return
    network.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def _by_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: object
) -> tuple[Tensor, None]:
    """(rows, tokens, heads, size): what the whole attention gives for an additive mask, 0 where a query may look.

    Args:
        query: (rows, heads, tokens, size); `key` and `value` are (rows, key-value heads, keys, size).
        attention_mask: (rows, 1, tokens, keys).
    """
    whole = ALL_ATTENTION_FUNCTIONS[_WHOLE]
    if attention_mask is None or len(query) != 1 or options.get("position_bias") is not None:
        return whole(module, query, key, value, attention_mask, **options)
    parts = []
    for block, seen, shown in _blocks(attention_mask):
        part, _ = whole(module, query[:, :, block], key[:, :, seen], value[:, :, seen], shown, **options)
        parts.append(part)
    return torch.cat(parts, dim=1), None


def _blocks(mask: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
    """Of each block of tokens: which, the keys that any of them sees, and the mask of those. Kept with the mask, which
    all layers share."""
    known: list[tuple[slice, Tensor, Tensor]] | None = getattr(mask, "blocks_of_tokens", None)
    if known is None:
        known = []
        for start in range(0, mask.shape[2], BLOCK_TOKENS):
            block = slice(start, start + BLOCK_TOKENS)
            seen = (mask[0, 0, block] == 0).any(0).nonzero()[:, 0]
            known.append((block, seen, mask[:, :, block, seen]))
        mask.blocks_of_tokens = known  # type: ignore[attr-defined]
    return known


AttentionInterface.register(_NAME, _by_blocks)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS[_WHOLE])

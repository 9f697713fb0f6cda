"""Attention within a tree of tokens, block by block.

A token of a tree looks at its own ancestors alone, so that most of the square of scores that a mask covers is computed
for nothing. Tokens that stand near each other share their ancestors: a block of them is given the keys that any of
them sees, and the rest is left out. The blocks go through transformers' own attention as the rows of one batch, on a
CPU in float32, which rounds less. Knows masks; knows nothing about token ids.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

BLOCK_QUERIES = 56
"""Queries that share a block's keys: with fewer, more keys are copied; more see more keys that only some need."""
KEYS = 16
"""Blocks have a multiple of so many keys, as kernels multiply so many in a step."""
_NAME = "tree_of_tokens"
_WHOLE = "sdpa"
_UNGROUPED = nn.Module()  # in the place of an attention module whose every query head has keys of its own


@dataclass(frozen=True)
class _Blocks:
    """Tokens in blocks of equal size, the last one filled up.

    Args:
        size: tokens of a block.
        seen: (blocks, keys) int64: the keys that any of a block's tokens sees, filled up with some that none does.
        mask: (blocks, 1, groups * size, keys): as the attention mask, for all the query heads that share keys.
    """

    size: int
    seen: Tensor
    mask: Tensor

    @classmethod
    def of(cls, mask: Tensor, groups: int) -> "_Blocks":
        size = max(1, BLOCK_QUERIES // groups)
        blocks = functional.pad(mask[0, 0], (0, 0, 0, -mask.shape[2] % size), value=float(mask.min()))
        blocks = blocks.unflatten(0, (-1, size))
        needed = (blocks == 0).any(1)
        count = -(-int(needed.sum(1).max()) // KEYS) * KEYS
        seen = needed.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
        shown = blocks.gather(2, seen[:, None].expand(-1, size, -1))
        return cls(size, seen, shown.repeat(1, groups, 1)[:, None])


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
    tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    blocks = _blocks(attention_mask, groups, dtype)
    filled = functional.pad(query[0].to(dtype), (0, 0, 0, -tokens % blocks.size))
    asking = filled.unflatten(0, (-1, groups)).unflatten(2, (-1, blocks.size))  # key heads, groups, blocks, size, …
    read, _ = whole(
        _UNGROUPED,
        asking.permute(2, 0, 1, 3, 4).flatten(2, 3),
        key[0].to(dtype)[:, blocks.seen].transpose(0, 1),
        value[0].to(dtype)[:, blocks.seen].transpose(0, 1),
        blocks.mask,
        **options,
    )
    by_token = read.to(query.dtype).unflatten(1, (groups, -1)).permute(0, 2, 3, 1, 4)  # blocks, size, key heads, …
    return by_token.flatten(0, 1).flatten(1, 2)[None, :tokens], None


def _blocks(mask: Tensor, groups: int, dtype: torch.dtype) -> _Blocks:
    """Kept with the mask, which all layers share."""
    known: dict[int, _Blocks] = mask.__dict__.setdefault("blocks_of_tokens", {})
    if groups not in known:
        known[groups] = _Blocks.of(mask.to(dtype), groups)
    return known[groups]


AttentionInterface.register(_NAME, _by_blocks)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS[_WHOLE])

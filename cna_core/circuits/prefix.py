"""The common prefix of all rows: its keys and values, computed once and used by every batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prefix:
    """The common prefix of all rows.

    Args:
        length: the number of tokens.
        layers: each layer's keys and values, (1, heads, length, size) each; empty for no tokens.
    """

    length: int = 0
    layers: tuple[Pair, ...] = ()

    def cache(self, rows: int) -> DynamicCache:
        """A cache for a batch of `rows` rows that continue the prefix. The batch does not change the prefix."""
        cache = DynamicCache()
        cache.layers = [_PrefixLayer(self.length, pair, rows) for pair in self.layers]
        return cache


class _PrefixLayer(DynamicLayer):
    """One layer of a prefix in a batch. The batch's own keys and values are not stored, since nothing is decoded."""

    def __init__(self, length: int, pair: Pair, rows: int) -> None:
        super().__init__()
        self.length, self.pair, self.rows, self.is_initialized = length, pair, rows, True

    def get_seq_length(self) -> int:
        return self.length

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> Pair:
        pairs = zip(self.pair, (key_states, value_states), strict=True)
        keys, values = (torch.cat([first.expand(self.rows, -1, -1, -1), rest], dim=-2) for first, rest in pairs)
        return keys, values

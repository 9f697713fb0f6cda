"""The tokens that all rows begin with: their keys and values, computed once and read by every batch.

Knows keys and values; knows nothing about rows and neurons.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prefix:
    """What all rows begin with.

    Args:
        length: tokens.
        layers: each layer's keys and values, (1, heads, length, size) each; none for no tokens.
    """

    length: int = 0
    layers: tuple[Pair, ...] = ()

    def cache(self, rows: int) -> DynamicCache:
        """A cache for a batch of `rows` rows that start after the prefix; the batch leaves the prefix as it is."""
        cache = DynamicCache()
        cache.layers = [_PrefixLayer(self.length, pair, rows) for pair in self.layers]
        return cache


class _PrefixLayer(DynamicLayer):
    """One layer of a prefix in a batch; what the batch adds is used and forgotten, as nothing is decoded after it."""

    def __init__(self, length: int, pair: Pair, rows: int) -> None:
        super().__init__()
        self.length, self.pair, self.rows, self.is_initialized = length, pair, rows, True

    def get_seq_length(self) -> int:
        return self.length

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> Pair:
        pairs = zip(self.pair, (key_states, value_states), strict=True)
        keys, values = (torch.cat([first.expand(self.rows, -1, -1, -1), rest], dim=-2) for first, rest in pairs)
        return keys, values

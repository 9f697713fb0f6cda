"""The tokens that all rows begin with: their keys and values, layer by layer as a pass computes them.

One pass brings them, and goes on with rows of its own; every other begins after them. Another that runs at the same
time waits, in each layer, until that layer's are there. Knows keys and values; knows nothing about rows and neurons.
"""

import contextlib
from concurrent.futures import Future, InvalidStateError
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
        layers: each layer's keys and values, (1, heads, length, size) each, as soon as they are there.
    """

    length: int
    layers: tuple[Future[Pair], ...]

    @classmethod
    def to_come(cls, length: int, layers: int) -> "Prefix":
        """A prefix that a pass of so many layers will bring; none for no tokens."""
        return cls(length, tuple(Future() for _ in range(layers if length else 0)))

    @property
    def is_here(self) -> bool:
        """Whether every layer's keys and values are there."""
        return all(layer.done() and not layer.cancelled() for layer in self.layers)

    @property
    def is_lost(self) -> bool:
        """Whether it was given up."""
        return any(layer.cancelled() for layer in self.layers)

    def give_up(self) -> None:
        """What has not come never will: a pass that waits for it ends with CancelledError."""
        for layer in self.layers:
            layer.cancel()

    def brought(self) -> DynamicCache:
        """A cache for a pass that begins with the prefix, which brings it."""
        return _cache_of([_BringingLayer(self.length, layer) for layer in self.layers])

    def cache(self, rows: int) -> DynamicCache:
        """A cache for a batch of `rows` that starts after the prefix; it leaves the prefix as it is."""
        return _cache_of([_PrefixLayer(self.length, layer, rows) for layer in self.layers])


def _cache_of(layers: list[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [*layers]
    return cache


class _BringingLayer(DynamicLayer):
    """One layer of the pass that brings the prefix."""

    def __init__(self, length: int, brought: Future[Pair]) -> None:
        super().__init__()
        self.length, self.brought = length, brought

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> Pair:
        keys, values = super().update(key_states, value_states)
        if keys.shape[-2] >= self.length:
            pair = keys[:1, :, : self.length].clone(), values[:1, :, : self.length].clone()
            with contextlib.suppress(InvalidStateError):  # given up meanwhile, or the layer came by before
                self.brought.set_result(pair)
        return keys, values


class _PrefixLayer(DynamicLayer):
    """One layer of a prefix in a batch; what the batch adds is used and forgotten, as nothing is decoded after it."""

    def __init__(self, length: int, brought: Future[Pair], rows: int) -> None:
        super().__init__()
        self.length, self.brought, self.rows, self.is_initialized = length, brought, rows, True

    def get_seq_length(self) -> int:
        return self.length

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> Pair:
        pairs = zip(self.brought.result(), (key_states, value_states), strict=True)
        keys, values = (torch.cat([first.expand(self.rows, -1, -1, -1), rest], dim=-2) for first, rest in pairs)
        return keys, values

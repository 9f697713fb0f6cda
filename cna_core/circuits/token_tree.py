"""Rows of tokens as one tree, in which common beginnings occur once.

"Explain how to bake" and "Explain how to sing" share three nodes. Each token attends only to its ancestors. A model
reads the whole tree as one row, so nothing is computed twice and there is no padding.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenTree:
    """The distinct beginnings of rows, parents before children.

    Args:
        tokens: (nodes,) int64 token ids.
        depths: (nodes,) int64: the number of tokens before each in its row.
        ends: (rows,) int64: the node each row ends with.
        ancestors: (nodes, nodes) bool: [i, j] whether j is i or one of its ancestors.
    """

    tokens: Tensor
    depths: Tensor
    ends: Tensor
    ancestors: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenTree":
        """The tree of rows of at least one token each."""
        children: dict[tuple[int, int], int] = {}  # (parent's node, token) to node
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        for row in rows:
            node = -1
            for depth, token in enumerate(row):
                if (node, token) not in children:
                    children[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    depths.append(depth)
                node = children[node, token]
            ends.append(node)
        ancestors = torch.eye(len(tokens), dtype=torch.bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        return cls(torch.tensor(tokens), torch.tensor(depths), torch.tensor(ends), ancestors)

    def __len__(self) -> int:
        return len(self.tokens)

    def mask(self, before: int, dtype: torch.dtype) -> Tensor:
        """(1, 1, nodes, before + nodes) in `dtype`, to add to attention scores: 0 where a node may attend.

        Args:
            before: the number of tokens before the tree, to which all nodes attend.
            dtype: of the result.
        """
        seen = torch.cat([torch.ones(len(self), before, dtype=torch.bool), self.ancestors], dim=1)
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def tree_batches(rows: Mapping[int, Sequence[int]], budget: int) -> list[list[int]]:
    """The fewest batches of rows within the budget, of similar size; rows with common beginnings are together.

    Args:
        rows: token ids by row number.
        budget: the limit for the nodes of a batch's tree; a single row may exceed it.
    """
    order = sorted(rows, key=lambda number: (list(rows[number]), number))
    before: Sequence[int] = ()
    sizes = []
    for row in (rows[number] for number in order):
        # In sorted order, a row shares with all earlier rows no more than with the previous one.
        sizes.append((len(row), len(row) - _shared(before, row)))
        before = row
    fewest = len(_cut(sizes, budget))
    # A small last batch would read all weights for few tokens.
    even = bisect.bisect_left(range(budget), True, key=lambda limit: len(_cut(sizes, limit)) <= fewest)
    counts = _cut(sizes, even)
    return [order[end - count : end] for count, end in zip(counts, itertools.accumulate(counts), strict=True)]


def _cut(sizes: Sequence[tuple[int, int]], budget: int) -> list[int]:
    """The number of rows in each batch; `sizes`: each row's nodes, first in a batch and after its predecessor."""
    counts: list[int] = []
    nodes = 0
    for alone, added in sizes:
        if not counts or nodes + added > budget:
            nodes, added = 0, alone
            counts.append(0)
        counts[-1] += 1
        nodes += added
    return counts


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens at the start that both share."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count

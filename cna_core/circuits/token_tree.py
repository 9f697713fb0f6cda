"""Rows of tokens as one tree: what several rows begin with stands in it once.

"Explain how to bake" and "Explain how to sing" share three nodes; each token attends to its own ancestors alone. A
model reads the whole tree as one row, so that nothing is computed twice and nothing is padding. Knows token ids; knows
nothing about models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenTree:
    """Distinct beginnings of some rows, parents before children.

    Args:
        tokens: (nodes,) int64 token ids.
        depths: (nodes,) int64: how many tokens come before each in its row.
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
        """(1, 1, nodes, before + nodes) in `dtype`, to be added to attention scores: 0 where a node may look.

        Args:
            before: tokens before the tree, which all nodes see.
        """
        seen = torch.cat([torch.ones(len(self), before, dtype=torch.bool), self.ancestors], dim=1)
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def tree_batches(rows: Mapping[int, Sequence[int]], budget: int) -> list[list[int]]:
    """Batches of rows whose trees have at most `budget` nodes each; rows that begin alike come together.

    Args:
        rows: token ids by row number.
        budget: nodes; a lone row may exceed it.
    """
    batches: list[list[int]] = []
    nodes, before = 0, None
    for number in sorted(rows, key=lambda number: (list(rows[number]), number)):
        row = rows[number]
        new = len(row) - (_shared(before, row) if before is not None else 0)
        if not batches or nodes + new > budget:
            batches.append([])
            nodes, new = 0, len(row)
        batches[-1].append(number)
        nodes, before = nodes + new, row
    return batches


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with. In sorted order, that is all that a row shares with the rows before it."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count

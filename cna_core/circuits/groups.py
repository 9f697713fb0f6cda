"""Groups of neurons that write alike: hierarchical clustering of the cosines of their output directions.

Works on a matrix of cosines (`writers.similarity`); knows no model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.15
"""The least mean cosine of a group, chosen by eye on one model. Random directions in 900 dimensions have cosines of
0.0 ± 0.03."""


@dataclass(frozen=True)
class Groups:
    """An order of neurons in which those that write alike stand together.

    Args:
        order: (n,) int64: the neurons' places, so that `similarity[order][:, order]` shows the groups as blocks.
        group: (n,) int64: the number of each neuron's group, in the original order.
    """

    order: NDArray[np.int64]
    group: NDArray[np.int64]

    def blocks(self, least: int = 2) -> list[tuple[int, int]]:
        """(first, last) places in `order` of every group of at least so many neurons."""
        numbers = self.group[self.order]
        changes = np.flatnonzero(np.diff(numbers)) + 1
        starts, ends = [0, *changes], [*(changes - 1), len(numbers) - 1]
        return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b - a + 1 >= least]


def group_alike(similarity: NDArray[np.floating], alike: float = ALIKE) -> Groups:
    """Group neurons by the cosines of their output directions (average linkage, ordered so that neighbours are close).

    Args:
        similarity: (n, n) cosines, symmetric.
        alike: the least mean cosine between the two parts of a group when they are joined.
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(similarity) < 2:
        return Groups(np.arange(len(similarity)), np.ones(len(similarity), dtype=np.int64))
    distance = np.clip(1 - np.asarray(similarity, dtype=np.float64), 0, 2)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    group = fcluster(tree, 1 - alike, "distance")
    return Groups(leaves_list(tree).astype(np.int64), group.astype(np.int64))

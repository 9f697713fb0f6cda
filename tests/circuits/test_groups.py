"""Neurons that write alike stand together, on matrices whose groups are known."""

import numpy as np
import pytest

from cna_core.circuits.groups import group_alike

ALIKE = np.array(
    [
        [1.0, 0.0, 0.8, 0.1, 0.0],
        [0.0, 1.0, 0.1, 0.9, 0.0],
        [0.8, 0.1, 1.0, 0.0, 0.0],
        [0.1, 0.9, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ]
)


def test_neurons_that_write_alike_are_neighbours_and_one_group() -> None:
    found = group_alike(ALIKE)
    assert found.group[0] == found.group[2] != found.group[1] == found.group[3]
    together = [set(found.order[first : last + 1].tolist()) for first, last in found.blocks()]
    assert sorted(together, key=min) == [{0, 2}, {1, 3}]


def test_a_group_is_joined_only_as_far_as_its_mean_cosine_allows() -> None:
    assert group_alike(ALIKE, alike=0.85).blocks() == [
        block for block in group_alike(ALIKE).blocks() if 1 in group_alike(ALIKE).order[block[0] : block[1] + 1]
    ]


def test_neurons_that_write_the_opposite_are_no_group() -> None:
    assert group_alike(np.array([[1.0, -1.0], [-1.0, 1.0]])).blocks() == []


@pytest.mark.parametrize("size", [0, 1])
def test_there_are_no_groups_of_less_than_two(size: int) -> None:
    found = group_alike(np.eye(size))
    assert found.blocks() == [] and list(found.order) == list(range(size))

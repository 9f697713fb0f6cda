"""The map of neurons that write alike."""

import numpy as np

from cna_core.circuits.groups import group_alike
from cna_core.figures.similarity import similarity_map

LAYERS, NEURONS = np.array([3, 1, 3, 2]), np.array([7, 7, 0, 4])
THREE_ALIKE = np.array([[1.0, 0.0, 0.7, 0.8], [0.0, 1.0, 0.0, 0.0], [0.7, 0.0, 1.0, 0.9], [0.8, 0.0, 0.9, 1.0]])


def test_groups_are_blocks_in_the_map_and_counted_in_its_title() -> None:
    groups = group_alike(THREE_ALIKE)
    figure = similarity_map(THREE_ALIKE, LAYERS, NEURONS, groups)
    (drawn,) = figure.data
    ((first, last),) = groups.blocks(3)
    block = np.asarray(drawn.z)[first : last + 1, first : last + 1]
    assert np.nanmin(block) >= 0.7 and np.isnan(np.diag(drawn.z)).all()
    assert set(drawn.x[first : last + 1]) == {"layer 3, neuron 7", "layer 3, neuron 0", "layer 2, neuron 4"}
    (outline,) = figure.layout.shapes
    assert (outline.x0, outline.x1) == (first - 0.5, last + 0.5)
    assert figure.layout.title.text == "One group of 3 neurons that write alike"


def test_a_circuit_without_groups_says_so() -> None:
    figure = similarity_map(np.eye(4), LAYERS, NEURONS, group_alike(np.eye(4)))
    assert not figure.layout.shapes and figure.layout.title.text == "No three neurons write alike"

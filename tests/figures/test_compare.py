import numpy as np

from cna_core.figures.compare import circuits_by_depth


def test_circuits_of_models_of_different_depth_share_an_axis() -> None:
    figure = circuits_by_depth(["one", "two"], [np.array([0, 1, 3]), np.array([1, 1, 0, 0, 0, 2])])
    first, second = figure.data
    np.testing.assert_allclose(first.y, [0, 0.25, 0.75])
    np.testing.assert_allclose(second.y, [0.25, 0.25, 0, 0, 0, 0.5])
    assert 0 < first.x[0] < first.x[-1] < 1
    assert first.line.color != second.line.color

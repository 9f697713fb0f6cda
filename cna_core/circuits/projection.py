"""Prompts seen through a circuit: a principal component analysis of their activations at the circuit's neurons.

Asks whether the circuit alone separates the two sets, and says how well. Never touches a model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import area_under_curve
from cna_core.errors import CircuitError


@dataclass(frozen=True)
class PromptProjection:
    """The prompts in the plane of largest variance.

    Args:
        points: (prompts, 2) float64; positive prompts lie to the right on average. The second column is 0 where the
            circuit has a single neuron.
        explained: (2,) float64: each component's share of the variance.
        auc: of the first component as a classifier of positive against negative prompts, 0.5 (chance) to 1; the labels
            are used only to turn the axis, not to find it.
    """

    points: NDArray[np.float64]
    explained: NDArray[np.float64]
    auc: float


def project_prompts(activations: Activations, circuit: Circuit) -> PromptProjection:
    """The prompts' activations at the circuit's neurons, centred, on their first two principal components.

    Raises:
        CircuitError: the circuit belongs to another model, or there are fewer than three prompts.
    """
    circuit.check_model(activations.model)
    values = activations.values[:, torch.from_numpy(circuit.flat)].double().numpy()
    if len(values) < 3:
        raise CircuitError("A projection needs at least three prompts; add prompts.")
    components = min(2, values.shape[1])
    points, explained = np.zeros((len(values), 2)), np.zeros(2)
    if values.std(0).any():  # identical prompts have no components
        analysis = PCA(components, svd_solver="full")
        points[:, :components] = analysis.fit_transform(values)
        explained[:components] = analysis.explained_variance_ratio_
    is_positive = activations.is_positive
    if points[is_positive, 0].mean() < points[~is_positive, 0].mean():
        points[:, 0] *= -1
    return PromptProjection(points, explained, float(area_under_curve(points[:, :1], is_positive)[0]))

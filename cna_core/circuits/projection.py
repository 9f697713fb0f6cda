"""Prompt space: a principal component analysis of the prompts' activations at the circuit's neurons.

It shows how well the circuit alone separates the two sets, also on prompts that were used neither for the circuit nor
for the axis.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval, area_under_curve, random_halves
from cna_core.errors import CircuitError


@dataclass(frozen=True)
class PromptProjection:
    """The prompts in the plane of largest variance.

    Args:
        points: (prompts, 2) float64; positive prompts lie to the right on average. The second column is 0 if the
            circuit has a single neuron.
        explained: (2,) float64: each component's share of the variance.
        auc: the AUC of the first component as a classifier of positive and negative prompts, from 0.5 (chance) to 1.
            Labels only determine the axis' sign.
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
    values = _seen(activations, circuit)
    if len(values) < 3:
        raise CircuitError("A projection needs at least three prompts; add prompts.")
    components = min(2, values.shape[1])
    points, explained = np.zeros((len(values), 2)), np.zeros(2)
    if values.std(0).any():  # identical prompts have no components
        analysis = PCA(components, svd_solver="full")
        points[:, :components] = analysis.fit_transform(values)
        explained[:components] = analysis.explained_variance_ratio_
    is_positive = activations.is_positive
    if _points_back(points[:, 0], is_positive):
        points[:, 0] *= -1
    return PromptProjection(points, explained, float(area_under_curve(points[:, :1], is_positive)[0]))


def held_out_auc(activations: Activations, circuit: Circuit, splits: int = 8, seed: int = 0) -> Interval | None:
    """AUC of the first component on prompts that were used neither for the circuit nor for the axis.

    A random half of each set selects a circuit with the circuit's own settings, and determines the axis and its sign;
    the other half is projected on it. None if a half would have fewer than three prompts, or for a circuit by effect,
    which activations cannot select.
    """
    circuit.check_model(activations.model)
    if circuit.settings.score == "attribution-patching":
        return None
    settings = circuit.settings.model_copy(update={"top_k": len(circuit)})
    found = []
    for half in random_halves(activations.is_positive, splits, np.random.default_rng(seed)):
        if half.sum() < 3 or min((activations.is_positive & ~half).sum(), (~activations.is_positive & ~half).sum()) < 1:
            return None
        chosen_by, others = (activations.without(np.flatnonzero(gone)) for gone in (~half, half))
        selected = attribute(chosen_by, **settings.model_dump(exclude={"effect", "transferred_from"}))
        values = _seen(chosen_by, selected)
        if not values.std(0).any():
            found.append(0.5)
            continue
        analysis = PCA(1, svd_solver="full").fit(values)
        turned = -1 if _points_back(analysis.transform(values)[:, 0], chosen_by.is_positive) else 1
        unseen = turned * analysis.transform(_seen(others, selected))
        found.append(float(area_under_curve(unseen, others.is_positive)[0]))
    return Interval.over(np.array(found))


def _seen(activations: Activations, circuit: Circuit) -> NDArray[np.float64]:
    """(prompts, circuit) float64."""
    values: NDArray[np.float64] = activations.values[:, torch.from_numpy(circuit.flat)].double().numpy()
    return values


def _points_back(component: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> bool:
    return bool(component[is_positive].mean() < component[~is_positive].mean())

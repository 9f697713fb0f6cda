"""The statistical evidence for a circuit, computed from recorded activations in one call: `examine`."""

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import excluded_neurons, scores
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import (
    Band,
    PermutationNull,
    Stability,
    auc,
    mass_per_layer,
    permutation_null,
    stability,
)
from cna_core.circuits.effect_stability import effect_stability
from cna_core.circuits.effects import Effects
from cna_core.progress import Report


@dataclass(frozen=True)
class Evidence:
    """The controls and statistics of a circuit.

    Args:
        left_out: (n,) flat positions of the universal neurons that the circuit's settings leave out.
        cutoff: the circuit's smallest |score|.
        auc: (circuit,) each neuron alone as a classifier of positive and negative prompts.
        mass, mass_normalised: (layers,) shares of |δ|, raw and after dividing by activation scale.
        null: circuits from shuffled labels; None for a circuit by effect, which does not use labels.
        null_mass: (low, mean, high) share of |δ| in each layer with shuffled labels; None if there is no null.
        stability: circuits from random halves; None if there are too few prompts to halve, or for a circuit by effect
            without its effects.
    """

    left_out: NDArray[np.int64]
    cutoff: float
    auc: NDArray[np.float64]
    mass: NDArray[np.float64]
    mass_normalised: NDArray[np.float64]
    null: PermutationNull | None
    null_mass: Band | None
    stability: Stability | None

    @property
    def selection_frequency(self) -> NDArray[np.float64] | None:
        """(circuit,) how often half of the prompts select each neuron; None if unknown."""
        return None if self.stability is None else self.stability.selection_frequency


def examine(
    activations: Activations,
    circuit: Circuit,
    seed: int = 0,
    *,
    effects: Effects | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Evidence:
    """Run every control of a circuit.

    Args:
        effects: what a circuit by effect was found by; gives its stability.

    Raises:
        CircuitError: the circuit belongs to another model.
        StoppedError: `stop` was set.
    """
    circuit.check_model(activations.model)
    null, halves = None, None
    if circuit.settings.score != "attribution-patching":
        null = permutation_null(activations, circuit, seed=seed, progress=progress, stop=stop)
        if min(len(activations.positive), len(activations.negative)) >= 2:
            halves = stability(activations, circuit, seed=seed, progress=progress, stop=stop)
    elif effects is not None and len(effects.positive) >= 2:
        halves = effect_stability(effects, circuit, seed=seed, progress=progress, stop=stop)
    return Evidence(
        left_out=left_out(activations, circuit),
        cutoff=cutoff(activations, circuit),
        auc=auc(activations, circuit.flat),
        mass=mass_per_layer(activations),
        mass_normalised=mass_per_layer(activations, normalised=True),
        null=null,
        null_mass=None if null is None else null.mass_band(),
        stability=halves,
    )


def left_out(activations: Activations, circuit: Circuit) -> NDArray[np.int64]:
    """(n,) int64 flat positions of the universal neurons that the circuit's settings leave out."""
    return excluded_neurons(activations, circuit.settings.model_copy(update={"top_k": len(circuit)}))


def cutoff(activations: Activations, circuit: Circuit) -> float:
    """The circuit's smallest |score|: δ, effect size or effect. NaN for a circuit by effect without its effects."""
    if circuit.settings.score == "attribution-patching":
        return math.nan if circuit.effect is None else float(np.abs(circuit.effect).min())
    return float(np.abs(scores(activations, circuit.settings.score))[circuit.flat].min())

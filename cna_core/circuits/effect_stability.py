"""The stability of a circuit found by effect: circuits from random halves of the prompts."""

import threading

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Stability
from cna_core.circuits.effect_circuit import most_negative
from cna_core.circuits.effects import Effects
from cna_core.errors import CircuitError
from cna_core.progress import Report, Stage, raise_if_stopped, tell


def effect_stability(
    effects: Effects,
    circuit: Circuit,
    left_out: NDArray[np.int64] | None = None,
    resamples: int = 50,
    seed: int = 0,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Stability:
    """Split the prompts into random halves, select a circuit of the same size from each, and compare.

    Args:
        left_out: (n,) flat positions that the circuit left out; none if not given.

    Raises:
        CircuitError: the circuit belongs to another model, or there are fewer than two prompts of a class.
        StoppedError: `stop` was set.
    """
    circuit.check_model(effects.model)
    generator = np.random.default_rng(seed)
    sides = [np.arange(len(effects.positive)), len(effects.positive) + np.arange(len(effects.negative))]
    if any(len(side) == 1 for side in sides):
        raise CircuitError("Stability needs at least two prompts to split; add prompts.")
    nowhere = np.empty(0, dtype=np.int64)
    first = int(effects.model.layout.offsets[circuit.settings.skip_layers])
    jaccards, selected = np.zeros(resamples), np.zeros(effects.model.layout.total)
    for resample in range(resamples):
        raise_if_stopped(stop)
        half = np.zeros(len(effects.prompts), dtype=bool)
        for side in sides:
            half[generator.permutation(side)[: len(side) // 2]] = True
        one, other = (
            most_negative(effects.effect_over(part), len(circuit), nowhere if left_out is None else left_out, first)
            for part in (half, ~half)
        )
        selected[one] += 1
        selected[other] += 1
        common = len(np.intersect1d(one, other))
        jaccards[resample] = common / (2 * len(circuit) - common)
        tell(progress, Stage.CHECKING_RANDOM_HALVES, resample + 1, resamples)
    return Stability(jaccards, selected[circuit.flat] / (2 * resamples))

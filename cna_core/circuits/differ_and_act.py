"""Where activations differ, and where neurons act: δ and effect side by side, by layer and by neuron.

Array code; never touches a model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import mass_per_layer
from cna_core.circuits.effects import Effects


@dataclass(frozen=True)
class DifferAndAct:
    """δ and effect of one model on the same prompts.

    Args:
        mass: (layers,) float64: each layer's share of |δ|.
        effect_shares: (layers,) float64: each layer's share of the effect towards refusal; 0 where not measured.
        by_delta, by_effect: circuits of the same size.
    """

    mass: NDArray[np.float64]
    effect_shares: NDArray[np.float64]
    by_delta: Circuit
    by_effect: Circuit

    @property
    def shared(self) -> int:
        """How many neurons both circuits hold."""
        return len(np.intersect1d(self.by_delta.flat, self.by_effect.flat))

    @staticmethod
    def strongest(shares: NDArray[np.float64], count: int = 3) -> tuple[list[int], float]:
        """The layers with the largest shares, largest first, and what they hold together."""
        layers = np.argsort(-shares, kind="stable")[:count]
        return layers.tolist(), float(shares[layers].sum())


def differ_and_act(
    activations: Activations, effects: Effects, size: int, layers: Effects | None = None
) -> DifferAndAct:
    """Compare δ and effect.

    Args:
        effects: a circuit by effect is selected from these.
        size: of both circuits, in neurons, at most: no more than push towards refusal.
        layers: give the layers' shares of effect; `effects` where not given.

    Raises:
        CircuitError: the model has fewer neurons to rank by |δ|.
    """
    size = min(size, int((np.nan_to_num(effects.effect) < 0).sum()))
    return DifferAndAct(
        mass=mass_per_layer(activations),
        effect_shares=(layers or effects).layer_shares,
        by_delta=attribute(activations, fraction=None, top_k=size),
        by_effect=attribute(effects, fraction=None, top_k=size, activations=activations, universal_threshold=None),
    )

"""Which layers carry the effect: the change of the refusal chance when a circuit is ablated in one layer only.

The location of a circuit's neurons does not show which of them act. For each layer with neurons of the circuit, this
ablates only these, then all others, and, as a control, equally many other neurons of the layer. All are rows of one
batch per prompt, and no answers are generated. This module knows nothing about sweeps, journals or figures.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Band, random_circuit
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.dials import PREFIX_BYTES
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.evaluation.intervals import Estimate, change_of_mean
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import as_messages

RANDOM_CIRCUITS = 3


@dataclass(frozen=True)
class CausalProfile:
    """The refusal chance of each prompt with parts of the circuit ablated; p prompts, l layers of the circuit.

    Args:
        layers: (l,) int64, the layers with neurons of the circuit, ascending.
        strength: the strength of steering: 1 ablates.
        baseline: (p,) float64, the chance without ablation.
        whole: (p,), with the whole circuit ablated.
        alone: (p, l), with only the circuit's neurons of this layer ablated.
        others: (p, l), with all but the circuit's neurons of this layer ablated.
        random: (p, l, r), with equally many random neurons of this layer ablated, all outside the circuit; r draws.
        layer_counts: (l,) int64, the circuit's neurons in each of these layers.
        model_layers: the number of the model's layers.
    """

    layers: NDArray[np.int64]
    strength: float
    baseline: NDArray[np.float64]
    whole: NDArray[np.float64]
    alone: NDArray[np.float64]
    others: NDArray[np.float64]
    random: NDArray[np.float64]
    layer_counts: NDArray[np.int64]
    model_layers: int

    @property
    def prompts(self) -> int:
        return len(self.baseline)

    @property
    def whole_change(self) -> Estimate:
        """The mean change of the chance with the whole circuit ablated, with its interval over prompts."""
        return change_of_mean(self.baseline, self.whole)

    @property
    def alone_changes(self) -> NDArray[np.float64]:
        """(l, 3): the mean change with only one layer's neurons ablated, and its 95 % interval over prompts."""
        return self._changes(self.alone)

    @property
    def others_changes(self) -> NDArray[np.float64]:
        """(l, 3): the mean change with all but one layer's neurons ablated, and its 95 % interval over prompts.

        If a layer matters only together with others, this is above the change with the whole circuit.
        """
        return self._changes(self.others)

    @property
    def random_band(self) -> NDArray[np.float64]:
        """(l, 3): the mean change with random neurons of a layer ablated, and the range of all draws' 95 % intervals.

        NaN if there are no draws.
        """
        if not self.random.shape[2]:
            return np.full((len(self.layers), 3), np.nan)
        band = []
        for place in range(len(self.layers)):
            means = np.array([change_of_mean(self.baseline, draw) for draw in self.random[:, place].T])
            band.append([means[:, 0].mean(), means[:, 1].min(), means[:, 2].max()])
        return np.array(band).reshape(-1, 3)

    def over_all_layers(self) -> NDArray[np.float64]:
        """(model layers,) float64: the mean change by each layer alone; NaN for layers outside the circuit."""
        values = np.full(self.model_layers, np.nan)
        values[self.layers] = self.alone_changes[:, 0]
        return values

    def strongest(self, count: int) -> list[tuple[int, float]]:
        """The layers that alone change the chance most, with their mean changes; the largest first."""
        changes = self.alone_changes[:, 0]
        order = np.argsort(-np.abs(changes), kind="stable")[:count]
        return [(int(self.layers[place]), float(changes[place])) for place in order]

    def bands(self) -> tuple[Band, Band]:
        """The change by each layer alone, for the circuit's neurons and for equally many random neurons.

        Each is (low, mean, high), (model layers,) float64, with the 95 % interval over prompts; NaN for layers outside
        the circuit, or without draws.
        """
        return self._spread(self.alone_changes), self._spread(self.random_band)

    def _spread(self, changes: NDArray[np.float64]) -> Band:
        everywhere = np.full((3, self.model_layers), np.nan)
        everywhere[:, self.layers] = changes[:, [1, 0, 2]].T
        return everywhere[0], everywhere[1], everywhere[2]

    def _changes(self, chances: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([change_of_mean(self.baseline, column) for column in chances.T]).reshape(-1, 3)


def causal_profile(
    model: LoadedModel,
    circuit: Circuit,
    prompts: Sequence[str],
    openings: RefusalOpenings,
    *,
    strength: float = 1.0,
    random_circuits: int = RANDOM_CIRCUITS,
    seed: int = 0,
    partial: Callable[[CausalProfile], None] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> CausalProfile:
    """Measure which layers' neurons change the refusal chance.

    Args:
        prompts: evaluation prompts, not those with which the circuit was found.
        openings: this model's calibration.
        strength: 1 ablates, 2 inverts.
        random_circuits: the number of draws of the layer-matched control; 0: none.
        seed: the seed of the first draw; the others follow.
        partial: called after each prompt with the profile so far.
        progress: receives the number of finished prompts.

    Raises:
        CircuitError: the circuit belongs to another model, or a layer is too small for the random control.
        StoppedError: `stop` was set.
    """
    circuit.check_model(model.identity)
    layers = np.unique(circuit.layers)
    drawn = [random_circuit(circuit, seed + draw) for draw in range(random_circuits)]
    parts = [circuit]
    parts += [circuit.part(circuit.layers == layer) for layer in layers]
    parts += [circuit.part(circuit.layers != layer) for layer in layers] if len(layers) > 1 else []
    parts += [other.part(other.layers == layer) for other in drawn for layer in layers]
    prefixes = PrefixCaches(model, PREFIX_BYTES)
    rows: list[NDArray[np.float64]] = []
    profile = _profile(circuit, layers, random_circuits, strength, rows)
    for done, prompt in enumerate(prompts):
        raise_if_stopped(stop)
        tell(progress, Stage.LAYER_PROFILE, done, len(prompts), "prompts")
        messages = as_messages(prompt)
        lanes = [Lane(messages), *(Lane(messages, strength=strength, circuit=part) for part in parts)]
        rows.append(openings.chance(first_token_logits(model, lanes, None, prefixes=prefixes, stop=stop)))
        profile = _profile(circuit, layers, random_circuits, strength, rows)
        if partial is not None:
            partial(profile)
    tell(progress, Stage.LAYER_PROFILE, len(prompts), len(prompts), "prompts")
    return profile


def _profile(
    circuit: Circuit, layers: NDArray[np.int64], draws: int, strength: float, rows: list[NDArray[np.float64]]
) -> CausalProfile:
    """The profile, from each prompt's chances: baseline, whole, alone and others by layer, random by draw and layer."""
    several = len(layers) > 1
    table = np.array(rows).reshape(len(rows), 2 + len(layers) * (1 + several + draws))
    baseline, whole, rest = table[:, 0], table[:, 1], table[:, 2:]
    alone, rest = rest[:, : len(layers)], rest[:, len(layers) :]
    # With a single layer, "all but its neurons" is empty.
    others, random = (rest[:, : len(layers)], rest[:, len(layers) :]) if several else (baseline[:, None], rest)
    return CausalProfile(
        layers=layers,
        strength=strength,
        baseline=baseline,
        whole=whole,
        alone=alone,
        others=others,
        random=random.reshape(len(rows), draws, len(layers)).transpose(0, 2, 1),
        layer_counts=np.bincount(circuit.layers, minlength=circuit.model.layers)[layers],
        model_layers=circuit.model.layers,
    )

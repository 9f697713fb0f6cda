"""Controls of a circuit: shuffled labels, random halves of the prompts, random neurons, and activation scale.

Except for the random circuit, everything is computed from recorded activations, never from the model. Relabelling the
prompts is one matrix product for each layer: (resamples, prompts) · (prompts, neurons).
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import circuit_at, circuit_size, excluded_neurons, scores
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.models.layout import NeuronLayout
from cna_core.progress import Report, Stage, raise_if_stopped, tell

Band = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""(low, mean, high), each (layers,) float64: the 95 % range over resamples."""

_VALUES_AT_ONCE = 1 << 26  # float32 scores held at a time: 256 MB


@dataclass(frozen=True)
class Interval:
    """A mean and the range that holds 95 % of the resamples."""

    mean: float
    low: float
    high: float

    @classmethod
    def over(cls, values: NDArray) -> "Interval":
        """The interval of resampled values (resamples,)."""
        low, high = np.quantile(values, [0.025, 0.975])
        return cls(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True)
class PermutationNull:
    """Circuits selected after shuffling the prompts' labels.

    Args:
        layout: the model's layers and neurons.
        layer_counts: (resamples, layers) int64: neurons in each layer of a circuit selected by the same rules.
        chance_neurons: (resamples,) int64: neurons that reach the smallest |score| of the real circuit.
        layer_mass: (resamples, layers) float32: sum of |δ| in each layer.
    """

    layout: NeuronLayout
    layer_counts: NDArray[np.int64]
    chance_neurons: NDArray[np.int64]
    layer_mass: NDArray[np.float32]

    def concentration(self, final: float | int = 0.10) -> Interval:
        """Share of a shuffled circuit in the final part: a share of the layers (0.10), or a number of layers (3)."""
        first = self.layout.first_layer_of_final(final)
        return Interval.over(self.layer_counts[:, first:].sum(1) / self.layer_counts.sum(1))

    def chance(self) -> Interval:
        """The number of neurons that reach the real circuit's smallest |score| by chance."""
        return Interval.over(self.chance_neurons)

    def layer_band(self) -> Band:
        """The 95 % range of the number of neurons in each layer."""
        return _band(self.layer_counts)

    def mass_band(self, layer_scale: NDArray[np.floating] | None = None) -> Band:
        """The 95 % range of each layer's share of the |δ| mass.

        Args:
            layer_scale: (layers,), each layer's activation scale to divide by first (`activation_scale`).
        """
        mass = self.layer_mass / (1 if layer_scale is None else layer_scale)
        return _band(mass / mass.sum(1, keepdims=True))


@dataclass(frozen=True)
class Stability:
    """How much the circuit depends on the choice of prompts.

    Args:
        jaccards: (resamples,) float64: overlap of the two circuits from random halves of the prompts.
        selection_frequency: (n,) float64: the share of these half-circuits that select each neuron.
    """

    jaccards: NDArray[np.float64]
    selection_frequency: NDArray[np.float64]

    @property
    def jaccard(self) -> Interval:
        """Mean overlap of two halves, with its 95 % range."""
        return Interval.over(self.jaccards)


def random_circuit(circuit: Circuit, seed: int = 0, activations: Activations | None = None) -> Circuit:
    """Random neurons outside the circuit, as many in every layer as the circuit has.

    The neuron at each rank is in the same layer as the circuit's neuron at that rank.

    Args:
        circuit: the circuit to match.
        seed: the same seed gives the same neurons.
        activations: gives the neurons their statistics, which are NaN without it.

    Raises:
        CircuitError: a layer has too few neurons outside the circuit.
    """
    generator = np.random.default_rng(seed)
    neurons = np.empty_like(circuit.neurons)
    for layer in np.unique(circuit.layers):
        mine = circuit.layers == layer
        others = np.setdiff1d(np.arange(circuit.model.layout.widths[layer]), circuit.neurons[mine])
        if len(others) < mine.sum():
            raise CircuitError(
                f"Layer {layer} has {len(others)} neurons outside the circuit, too few for a random twin with "
                f"{mine.sum()}; choose a smaller circuit."
            )
        neurons[mine] = generator.choice(others, size=int(mine.sum()), replace=False)
    if activations is not None:
        return circuit_at(activations, circuit.model.layout.flat(circuit.layers, neurons), circuit.settings)
    unknown = np.full(len(circuit), np.nan, dtype=np.float32)
    return Circuit(
        circuit.model, circuit.settings, circuit.prompts, circuit.layers, neurons, unknown, unknown, unknown, unknown
    )


def permutation_null(
    activations: Activations,
    circuit: Circuit,
    resamples: int = 200,
    seed: int = 0,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> PermutationNull:
    """Select circuits with the circuit's own settings after shuffling the prompts' labels.

    Universal neurons and skipped layers are left out, as for the real circuit.

    Raises:
        CircuitError: the circuit belongs to another model.
        StoppedError: `stop` was set.
    """
    circuit.check_model(activations.model)
    generator = np.random.default_rng(seed)
    positive = generator.permuted(np.tile(activations.is_positive, (resamples, 1)), axis=1)
    ranking = _Ranking(activations, circuit)
    reached = float(np.abs(scores(activations, circuit.settings.score))[circuit.flat].min())
    layer_counts, chance, masses = [], [], []
    for part in ranking.parts(resamples):
        largest, chance_part, mass = [], torch.zeros(part.stop - part.start, dtype=torch.int64), []
        for delta, magnitude in ranking.layers(positive[part], ~positive[part], stop):
            largest.append(magnitude.topk(min(ranking.size, magnitude.shape[1]), sorted=False).values)
            chance_part += (magnitude >= reached).sum(1)
            mass.append(delta.abs().sum(1))
        cutoffs = torch.cat(largest, 1).topk(ranking.size, sorted=False).values.amin(1, keepdim=True)
        layer_counts.append(torch.stack([(layer >= cutoffs).sum(1) for layer in largest], 1))
        chance.append(chance_part)
        masses.append(torch.stack(mass, 1))
        tell(progress, Stage.CHECKING_SHUFFLED_LABELS, part.stop, resamples, "circuits")
    return PermutationNull(
        activations.model.layout, torch.cat(layer_counts).numpy(), torch.cat(chance).numpy(), torch.cat(masses).numpy()
    )


def stability(
    activations: Activations,
    circuit: Circuit,
    resamples: int = 50,
    seed: int = 0,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Stability:
    """Split the prompts of each set into random halves, select a circuit from either, and compare.

    The universal neurons are those of all prompts.

    Raises:
        CircuitError: the circuit belongs to another model, or a set has fewer than two prompts.
        StoppedError: `stop` was set.
    """
    circuit.check_model(activations.model)
    if min(len(activations.positive), len(activations.negative)) < 2:
        raise CircuitError("Stability needs at least two positive and two negative prompts to split; add prompts.")
    first = random_halves(activations.is_positive, resamples, np.random.default_rng(seed))
    is_positive = activations.is_positive
    halves = np.concatenate([first, ~first])
    ranking = _Ranking(activations, circuit)
    layout, flat = activations.model.layout, circuit.flat
    frequency = np.zeros(len(circuit))
    jaccards = []
    # Each part holds both halves of its splits, to compare them; scores are computed twice instead of stored.
    for part in ranking.parts(resamples, rows_each=2):
        rows = np.r_[part, part.start + resamples : part.stop + resamples]
        positive, negative = halves[rows] & is_positive, halves[rows] & ~is_positive
        largest = [
            magnitude.topk(min(ranking.size, magnitude.shape[1]), sorted=False).values
            for _, magnitude in ranking.layers(positive, negative, stop)
        ]
        cutoffs = torch.cat(largest, 1).topk(ranking.size, sorted=False).values.amin(1, keepdim=True)
        common, union = np.zeros(len(rows) // 2), np.zeros(len(rows) // 2)
        for layer, (_, magnitude) in enumerate(ranking.layers(positive, negative, stop)):
            one, other = (magnitude >= cutoffs).chunk(2)
            common += (one & other).sum(1).numpy()
            union += (one | other).sum(1).numpy()
            mine = circuit.layers == layer
            columns = torch.from_numpy(flat[mine] - layout.offsets[layer])
            frequency[mine] += (one[:, columns].sum(0) + other[:, columns].sum(0)).numpy()
        jaccards.append(common / union)
        tell(progress, Stage.CHECKING_RANDOM_HALVES, part.stop, resamples, "splits")
    return Stability(np.concatenate(jaccards), frequency / len(halves))


def mass_per_layer(activations: Activations, normalised: bool = False) -> NDArray[np.float64]:
    """(layers,) float64, summing to 1: each layer's share of the sum of |δ|.

    Args:
        activations: the activations.
        normalised: divide each layer by its activation scale first, so that layers with large activations do not
            dominate.
    """
    mass = np.array([np.abs(part).sum(dtype=np.float64) for part in activations.model.layout.split(activations.delta)])
    if normalised:
        mass = mass / activation_scale(activations)
    return mass / max(mass.sum(), np.finfo(np.float64).tiny)


def activation_scale(activations: Activations) -> NDArray[np.float64]:
    """(layers,) float64: mean |a| over all prompts and the layer's neurons; 1 for a layer of zeros."""
    layout = activations.model.layout
    scale = np.array([float(_columns(activations, layout, layer).abs().mean()) for layer in range(layout.layers)])
    return np.where(scale > 0, scale, 1.0)


def auc(activations: Activations, flat: NDArray[np.integer]) -> NDArray[np.float64]:
    """(n,) float64: the AUC of each neuron alone as a classifier of positive and negative prompts.

    It is the probability that a random positive prompt's activation is above a random negative one's, with ties counted
    half. 0.5 is chance; 1 and 0 are perfect (0: the neuron is lower on positive prompts).

    Args:
        activations: the activations.
        flat: (n,) flat positions of neurons.
    """
    values = activations.values[:, torch.from_numpy(np.asarray(flat, dtype=np.int64))].float().numpy()
    return area_under_curve(values, activations.is_positive)


def area_under_curve(values: NDArray[np.floating], is_positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) float64: the AUC of each column of `values` (prompts, n) as a score for `is_positive` (prompts,)."""
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    rank_sum = rankdata(values, axis=0)[is_positive].sum(0)
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


class _Ranking:
    """|score| of every neuron for many labellings of the prompts, layer by layer, with the circuit's settings."""

    def __init__(self, activations: Activations, circuit: Circuit) -> None:
        self.activations = activations
        self.layout = activations.model.layout
        self.score = circuit.settings.score
        # Use the circuit's own size, because its settings may hold a fraction of another model.
        settings = circuit.settings.model_copy(update={"top_k": len(circuit)})
        self.size = circuit_size(self.layout, settings)
        excluded = np.zeros(self.layout.total, dtype=bool)
        excluded[excluded_neurons(activations, settings)] = True
        excluded[: self.layout.offsets[settings.skip_layers]] = True
        self.excluded = [torch.from_numpy(np.flatnonzero(part)) for part in self.layout.split(excluded)]

    def parts(self, resamples: int, rows_each: int = 1) -> Iterator[slice]:
        """Slices of the resamples, small enough that the layers' largest scores of a slice fit into memory."""
        kept = sum(min(self.size, width) for width in self.layout.widths) * rows_each
        step = max(1, _VALUES_AT_ONCE // kept)
        for start in range(0, resamples, step):
            yield slice(start, min(start + step, resamples))

    def layers(
        self, positive: NDArray[np.bool_], negative: NDArray[np.bool_], stop: threading.Event | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each layer δ and |score|, both (rows, width) float32; |score| is −1 where a neuron cannot be selected.

        Args:
            positive, negative: (rows, prompts) bool: the prompts that count as such in each row.
            stop: checked before every layer.
        """
        positive_weights, positives = _mean_weights(positive)
        negative_weights, negatives = _mean_weights(negative)
        for layer, excluded in enumerate(self.excluded):
            raise_if_stopped(stop)
            values = _columns(self.activations, self.layout, layer)
            delta = (positive_weights - negative_weights) @ values
            magnitude = delta.abs()
            if self.score == "effect-size":
                values = values - values.mean(0)  # keeps squares precise; variances do not change
                squares = values.square()
                spread = torch.zeros_like(delta)
                for weights, count in ((positive_weights, positives), (negative_weights, negatives)):
                    spread += count * (weights @ squares - (weights @ values).square()).clamp_(min=0)
                deviation = (spread / (positives + negatives - 2).clamp(min=1)).sqrt()
                magnitude = torch.where(deviation > 0, magnitude / deviation, 0.0)
            magnitude[:, excluded] = -1
            yield delta, magnitude


def _columns(activations: Activations, layout: NeuronLayout, layer: int) -> Tensor:
    """(prompts, width) float32: one layer's activations."""
    return activations.values[:, layout.offsets[layer] : layout.offsets[layer + 1]].float()


def _mean_weights(chosen: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """(rows, prompts) float32 whose product with values is the mean over the chosen prompts, and (rows, 1) counts."""
    mask = torch.from_numpy(chosen).float()
    counts = mask.sum(1, keepdim=True)
    return mask / counts, counts


def random_halves(is_positive: NDArray[np.bool_], resamples: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """(resamples, prompts) bool: half of the positive and half of the negative prompts, rounded down."""
    chosen = np.zeros((resamples, len(is_positive)), dtype=bool)
    for members in (np.flatnonzero(is_positive), np.flatnonzero(~is_positive)):
        order = generator.permuted(np.tile(members, (resamples, 1)), axis=1)
        np.put_along_axis(chosen, order[:, : len(members) // 2], True, axis=1)
    return chosen


def _band(values: NDArray) -> Band:
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return low, values.mean(0, dtype=np.float64), high

"""What the map of all neurons shows: the statistics of every neuron, and the cells into which they are pooled.

Pure functions of arrays; this module draws nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cna_core.models.layout import NeuronLayout

if TYPE_CHECKING:  # the empty map is drawn before torch is imported
    from cna_core.circuits.activations import Activations

Quantity = Literal["delta", "magnitude", "effect-size", "effect"]
Order = Literal["index", "value"]

LARGEST_COLUMNS = 1024
"""The most cells in a row: about the number of pixels. With more, the browser would drop cells, and peaks with them."""


@dataclass(frozen=True)
class NeuronStatistics:
    """Statistics of every neuron; arrays are (total,) float32 on the layout's flat axis.

    Args:
        layout: layers and neurons.
        delta: δ, final or of the prompts so far.
        positive_mean, negative_mean, effect_size: None while prompts are still being recorded.
        effect: the estimated change of refusal when the neuron is ablated; None if it was not measured, NaN in layers
            that were not. Drawn with the opposite sign, so that pushing towards refusal is positive.
    """

    layout: NeuronLayout
    delta: NDArray[np.float32]
    positive_mean: NDArray[np.float32] | None = None
    negative_mean: NDArray[np.float32] | None = None
    effect_size: NDArray[np.float32] | None = None
    effect: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, activations: "Activations", effect: NDArray[np.float32] | None = None) -> "NeuronStatistics":
        """All statistics of finished activations, and the effects where they were measured."""
        return cls(
            activations.model.layout,
            activations.delta,
            activations.positive_mean,
            activations.negative_mean,
            activations.effect_size,
            effect,
        )

    def values(self, quantity: Quantity) -> NDArray[np.float32]:
        """(total,) float32: the values to draw; δ if the effect size or the effect is not known yet."""
        if quantity == "effect" and self.effect is not None:
            return -self.effect
        if quantity == "effect-size" and self.effect_size is not None:
            return self.effect_size
        return np.abs(self.delta) if quantity == "magnitude" else self.delta


@dataclass(frozen=True)
class Cells:
    """The map's cells. Each shows the neuron with the largest |value| in it.

    Args:
        values: (rows, columns) float32; NaN beyond the end of a narrower layer.
        neurons: (rows, columns) int32: the neuron shown; −1 for none.
        first_layer: the layer of row 0.
        first_position: the first neuron's position on the horizontal axis.
        bin_width: neurons in a cell.
        positions: (rows, widest) int32: each neuron's position in its row, by neuron index; −1 for none.
    """

    values: NDArray[np.float32]
    neurons: NDArray[np.int32]
    first_layer: int
    first_position: int
    bin_width: int
    positions: NDArray[np.int32]

    @property
    def centres(self) -> NDArray[np.float32]:
        """(columns,) float32: the middle of each cell on the horizontal axis."""
        return self.first_position + (np.arange(self.values.shape[1], dtype=np.float32) + 0.5) * self.bin_width - 0.5


def pool(
    values: NDArray[np.floating],
    layout: NeuronLayout,
    layers: tuple[int, int] | None = None,
    neurons: tuple[int, int] | None = None,
    order: Order = "index",
    largest_columns: int = LARGEST_COLUMNS,
) -> Cells:
    """Pool every layer into at most `largest_columns` cells, keeping the value of largest magnitude with its sign.

    Args:
        values: (total,) one value for each neuron.
        layout: layers and neurons.
        layers: first and last layer, both included; None shows all.
        neurons: first and last position on the horizontal axis, both included; None shows all.
        order: "index" sorts by neuron index; "value" sorts each layer from its largest value to its smallest.
        largest_columns: the most cells in a row.
    """
    first_layer, last_layer = clamped(layers, layout.layers)
    widest = max(layout.widths[first_layer : last_layer + 1])
    rows = last_layer - first_layer + 1
    matrix = np.full((rows, widest), np.nan, dtype=np.float32)
    for row, part in enumerate(layout.split(values)[first_layer : last_layer + 1]):
        matrix[row, : len(part)] = part
    indices = np.broadcast_to(np.arange(widest, dtype=np.int32), matrix.shape)
    if order == "value":
        indices = np.argsort(-matrix, axis=1, kind="stable").astype(np.int32)  # NaN goes last
        matrix = np.take_along_axis(matrix, indices, axis=1)
    positions = np.full((rows, widest), -1, dtype=np.int32)
    np.put_along_axis(positions, indices, np.arange(widest, dtype=np.int32)[None], axis=1)
    first, last = clamped(neurons, widest)
    matrix, indices = matrix[:, first : last + 1], indices[:, first : last + 1]
    bin_width = -(-matrix.shape[1] // largest_columns)
    missing = -matrix.shape[1] % bin_width
    bins = np.pad(matrix, ((0, 0), (0, missing)), constant_values=np.nan).reshape(rows, -1, bin_width)
    names = np.pad(indices, ((0, 0), (0, missing)), constant_values=-1).reshape(rows, -1, bin_width)
    strongest = np.where(np.isnan(bins), -1, np.abs(bins)).argmax(-1)[..., None]
    pooled = np.take_along_axis(bins, strongest, -1)[..., 0]
    shown = np.where(np.isnan(pooled), -1, np.take_along_axis(names, strongest, -1)[..., 0]).astype(np.int32)
    return Cells(pooled, shown, first_layer, first, bin_width, positions)


def clamped(ends: tuple[int, int] | None, length: int) -> tuple[int, int]:
    if ends is None:
        return 0, length - 1
    first = min(max(ends[0], 0), length - 1)
    return first, min(max(ends[1], first), length - 1)

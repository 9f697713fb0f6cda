"""The numbering of a model's neurons: (layer, neuron) pairs, and one flat axis over all layers.

Layers may differ in width. This is arithmetic on widths, without torch, shared by capture, selection and figures.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cna_core.outside import Line

MOST_LAYERS = 5_000
MOST_NEURONS = 200_000_000
"""More than any model has; the largest with routed experts have about 50 million."""

Width = Annotated[int, Field(ge=0, le=MOST_NEURONS)]


class ModelIdentity(BaseModel):
    """The identity of the model that a measurement belongs to; stored in every circuit and run file."""

    model_config = ConfigDict(frozen=True)

    name: Line
    revision: Line
    layers: int = Field(ge=0, le=MOST_LAYERS)
    neurons_per_layer: Width | Annotated[tuple[Width, ...], Field(max_length=MOST_LAYERS)]
    dtype: Line

    @model_validator(mode="after")
    def _is_possible(self) -> "ModelIdentity":
        widths = self.neurons_per_layer
        if (widths * self.layers if isinstance(widths, int) else sum(widths)) > MOST_NEURONS:
            raise ValueError(f"no model has more than {MOST_NEURONS:,} neurons")
        return self

    def describe(self) -> str:
        """The model in a few words: "qwen2.5-coder-0.5b-instruct: 24 layers, 116,736 neurons, bfloat16"."""
        return f"{self.name}: {self.layers} layers, {self.layout.total:,} neurons, {self.dtype}"

    @property
    def layout(self) -> "NeuronLayout":
        widths = self.neurons_per_layer
        return NeuronLayout((widths,) * self.layers if isinstance(widths, int) else tuple(widths))


@dataclass(frozen=True)
class NeuronLayout:
    """Neurons of all layers on one flat axis, layer after layer.

    Args:
        widths: neurons in each layer, first layer first.
    """

    widths: tuple[int, ...]

    @property
    def layers(self) -> int:
        return len(self.widths)

    @property
    def total(self) -> int:
        return sum(self.widths)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(layers + 1,) int64: where each layer starts on the flat axis; the last entry is the total."""
        return np.concatenate([[0], np.cumsum(self.widths)]).astype(np.int64)

    def flat(self, layers: NDArray[np.integer], neurons: NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat positions of (layer, neuron) pairs; both arguments and the result are (n,)."""
        return self.offsets[:-1][np.asarray(layers)] + np.asarray(neurons)

    def locate(self, flat: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Layers and neurons, each (n,) int64, of flat positions (n,)."""
        flat = np.asarray(flat, dtype=np.int64)
        layers = np.searchsorted(self.offsets, flat, side="right") - 1
        return layers, flat - self.offsets[layers]

    def split(self, values: NDArray) -> list[NDArray]:
        """Views of the last axis of `values` (…, total): one of shape (…, width) for each layer."""
        return [values[..., start:end] for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def first_layer_of_final(self, final: float | int) -> int:
        """The first layer of the final part: a share (0.10 is the last max(1, round(0.1·L)) of L layers) or number."""
        count = max(1, round(final * self.layers)) if isinstance(final, float) else final
        return max(0, self.layers - count)

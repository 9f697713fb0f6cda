"""The change of one row of a batch, as data: what a method gives for a strength.

There are three primitives: neurons are multiplied and added to; vectors are added to the residual stream after each
layer; one direction is projected out of everything written to the residual stream. plan.py applies changes.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import CircuitError


@dataclass(frozen=True)
class NeuronChange:
    """Chosen neurons become multiplier · activation + addition, at every token.

    Args:
        layers, neurons: (n,) int64.
        multipliers: (n,) float32; 1 changes nothing.
        additions: (n,) float32; 0 changes nothing.
    """

    layers: NDArray[np.int64]
    neurons: NDArray[np.int64]
    multipliers: NDArray[np.float32]
    additions: NDArray[np.float32]

    @property
    def acts(self) -> NDArray[np.bool_]:
        """(n,) bool: the neurons that are changed at all."""
        return (self.multipliers != 1.0) | (self.additions != 0.0)


@dataclass(frozen=True)
class DirectionChange:
    """At every write to the residual stream, x becomes x − amount · (r · x) r, at every layer and token.

    A write is what the embedding, a layer's attention or its MLP adds. So the stream's component along the direction is
    1 − amount of what was written, plus `amount · offset`, which is added once, to the embedding.

    Args:
        direction: r, (hidden,) float32 of length 1.
        amount: 1 removes the direction, 0 changes nothing, below 0 amplifies it.
        offset: the component along r that replaces what is removed.
    """

    direction: NDArray[np.float32]
    amount: float
    offset: float = 0.0


@dataclass(frozen=True)
class RowChange:
    """The change of one row; several primitives may act together.

    Args:
        neurons: the change of neurons, or None.
        additions: (layers, hidden) float32, added to each layer's output at every token, or None.
        direction: the change of a direction, or None.
    """

    neurons: NeuronChange | None = None
    additions: NDArray[np.float32] | None = None
    direction: DirectionChange | None = None

    def __post_init__(self) -> None:
        values = [] if self.neurons is None else [self.neurons.multipliers, self.neurons.additions]
        values += [] if self.additions is None else [self.additions]
        values += [] if self.direction is None else [np.array([self.direction.amount, self.direction.offset])]
        if not all(np.isfinite(part).all() for part in values):
            raise CircuitError("A strength or multiplier is not a finite number: use 0 for baseline, 1 for ablated.")

    @property
    def is_neutral(self) -> bool:
        """Whether the row is not changed at all."""
        return not (
            (self.neurons is not None and bool(self.neurons.acts.any()))
            or (self.additions is not None and bool(self.additions.any()))
            or (self.direction is not None and self.direction.amount != 0.0)
        )

    @cached_property
    def key(self) -> bytes:
        """A hash that is equal for equal changes; empty for all neutral rows."""
        if self.is_neutral:
            return b""
        digest = hashlib.sha256()
        if self.neurons is not None:
            acts = self.neurons.acts
            for part in (self.neurons.layers, self.neurons.neurons, self.neurons.multipliers, self.neurons.additions):
                digest.update(part[acts].tobytes() + b"|")
        if self.additions is not None:
            digest.update(b"additions" + self.additions.tobytes())
        if self.direction is not None:
            digest.update(b"direction" + self.direction.direction.tobytes())
            digest.update(np.array([self.direction.amount, self.direction.offset]).tobytes())
        return digest.digest()


NEUTRAL = RowChange()
"""No change."""

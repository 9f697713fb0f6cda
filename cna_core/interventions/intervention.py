"""What a method is: the contract of every way to change what a model does, and what methods are fitted from.

A class is a method: it says what it is called and what its strength means. An instance is the method fitted to one
model: it holds what it needs (a circuit, vectors, a direction) and says, for a strength, how a row of a batch is
changed. Chat, sweeps, the command line, the endpoint and the charts know methods by this contract and the registry
alone. Knows nothing about decoding; whether a candidate works is told by a `Trial` from above.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.interventions.change import RowChange
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel

Colour = Literal["steered", "mean", "addition", "direction", "affine", "other"]
"""What a method is drawn in: a role, which figures/palette.py gives a colour."""

STRENGTH_WORDS: Mapping[float, str] = {-1.0: "amplified", 0.0: "baseline", 1.0: "ablated", 2.0: "inverted"}


class Intervention(ABC):
    """One method, fitted to one model.

    To add a method: write one file in this folder with a subclass, decorated with `@register` (registry.py).

    Attributes:
        key: stable; files and addresses hold it.
        title: what it does, in a few words.
        label: its name on charts and buttons.
        colour: its role of colour.
        uses_circuit: whether it acts on a circuit's neurons, so that the circuit's size matters.
        uses_prompts: whether fitting it needs the discovery prompts.
        strength_words: what its strengths mean.
        model: the model it is fitted to.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    label: ClassVar[str]
    colour: ClassVar[Colour] = "other"
    uses_circuit: ClassVar[bool] = False
    uses_prompts: ClassVar[bool] = True
    strength_words: ClassVar[Mapping[float, str]] = STRENGTH_WORDS

    model: ModelIdentity

    @classmethod
    @abstractmethod
    def fit(cls, material: "Material") -> Self:
        """The method on the material's model.

        Raises:
            CircuitError: the material lacks what the method needs; the message says what.
            StoppedError: the material's `stop` was set.
        """

    @abstractmethod
    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        """How a row is changed at this strength; at 0 not at all.

        Args:
            strength: 0 baseline, 1 ablated; methods on neurons also take (n,), one a neuron in rank order.
        """

    @abstractmethod
    def twin(self, seed: int = 0) -> Self:
        """The control: the same done with what was drawn at random (other neurons of the same layers, a random
        direction, random vectors of the same lengths); the same seed draws the same.

        Raises:
            CircuitError: there is nothing left to draw from.
        """

    def check_model(self, identity: ModelIdentity) -> None:
        """Make sure that this can be applied to that model.

        Raises:
            CircuitError: it was fitted to another model.
        """
        if self.model.layout != identity.layout or self.model.name != identity.name:
            raise CircuitError(
                f"{self.label} was fitted to {self.model.name}, not to {identity.name}; fit it to this model."
            )

    def describe(self) -> str:
        """What was fitted, in a few words: "117 neurons", "layer 14 of 24"; empty where there is nothing to say."""
        return ""


@dataclass(frozen=True)
class TrialResult:
    """What candidates do on discovery prompts.

    Args:
        refusal_chance: (n,) float64: mean chance, 0 to 1, that a positive prompt's answer opens as a refusal.
        divergence: (n,) float64: mean KL divergence, in nats, of the first token on negative prompts.
    """

    refusal_chance: NDArray[np.float64]
    divergence: NDArray[np.float64]


Trial = Callable[[Sequence[Intervention]], TrialResult]
"""Tries fitted candidates at strength 1 on discovery prompts alone."""


@dataclass(frozen=True)
class Material:
    """What methods may be fitted from; what costs something is made only when a method asks for it.

    Args:
        model: in memory, held by the caller.
        circuit: for methods on its neurons.
        record: gives the discovery prompts' activations.
        trial: tells what candidates do.
        stop: ends the fitting.
    """

    model: LoadedModel
    circuit: Circuit | None = None
    record: Callable[[], Activations] | None = None
    trial: Trial | None = None
    stop: threading.Event | None = field(default=None, compare=False)

    def needed_circuit(self, method: type[Intervention]) -> Circuit:
        """The circuit, which belongs to the model.

        Raises:
            CircuitError: there is none, or it belongs to another model.
        """
        if self.circuit is None:
            raise CircuitError(f"{method.label} acts on a circuit's neurons; give a circuit.")
        self.circuit.check_model(self.model.identity)
        return self.circuit

    def needed_activations(self, method: type[Intervention]) -> Activations:
        """The discovery prompts' activations, recorded now where they are not kept.

        Raises:
            CircuitError: there are no discovery prompts to record.
        """
        if self.record is None:
            raise CircuitError(f"{method.label} is fitted on discovery prompts; fit it with cna_core.fit first.")
        return self.record()

    def needed_trial(self, method: type[Intervention]) -> Trial:
        """What tells good candidates from others.

        Raises:
            CircuitError: there is none.
        """
        if self.trial is None:
            raise CircuitError(f"{method.label} tries candidates on discovery prompts; fit it with cna_core.fit first.")
        return self.trial

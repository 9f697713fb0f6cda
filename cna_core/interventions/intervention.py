"""The contract of a steering method, and the material that methods are fitted from.

A class is a method: it has its name and the meaning of its strengths. An instance is the method fitted to one model: it
holds what the method needs (a circuit, vectors, a direction), and gives the change of a batch row for a strength. Chat,
sweeps, the command line, the endpoint and the charts use methods only through this contract and the registry. This
module does not decode; a `Trial` given from outside tests candidates.
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
"""The role of a method's colour; figures/palette.py has the colours."""

STRENGTH_WORDS: Mapping[float, str] = {-1.0: "amplified", 0.0: "baseline", 1.0: "ablated", 2.0: "inverted"}


class Intervention(ABC):
    """One method, fitted to one model.

    To add a method: write one file in this folder with a subclass, decorated with `@register` (registry.py).

    Attributes:
        key: a stable identifier, used in files and addresses.
        title: what it does, in a few words.
        label: its name on charts and buttons.
        colour: the role of its colour.
        uses_circuit: whether it changes a circuit's neurons, so that the circuit's size matters.
        uses_prompts: whether fitting it needs the discovery prompts.
        strength_words: names of its strengths.
        model: the model that it is fitted to.
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
        """The method fitted to the material's model.

        Raises:
            CircuitError: the material lacks something that the method needs.
            StoppedError: the material's `stop` was set.
        """

    @abstractmethod
    def change(self, strength: float | NDArray[np.floating]) -> RowChange:
        """The change of a row at this strength; none at 0.

        Args:
            strength: 0 for baseline, 1 for ablated; methods on neurons also take (n,), one for each neuron in rank
                order.
        """

    @abstractmethod
    def twin(self, seed: int = 0) -> Self:
        """The random twin, which is the control: the same method with other neurons of the same layers, a random
        direction, or random vectors of the same lengths. The same seed gives the same twin.

        Raises:
            CircuitError: there are not enough other neurons.
        """

    def check_model(self, identity: ModelIdentity) -> None:
        """Check that the method can be applied to a model.

        Raises:
            CircuitError: it was fitted to another model.
        """
        if self.model.layout != identity.layout or self.model.name != identity.name:
            raise CircuitError(
                f"{self.label} was fitted to {self.model.name}, not to {identity.name}: fit it to this model."
            )

    def describe(self) -> str:
        """What was fitted, in a few words: "117 neurons", "layer 14 of 24"; may be empty."""
        return ""


@dataclass(frozen=True)
class TrialResult:
    """The effects of candidates on discovery prompts.

    Args:
        refusal_chance: (n,) float64: mean chance, 0 to 1, that a positive prompt's answer opens as a refusal.
        divergence: (n,) float64: mean KL divergence, in nats, of the first token on negative prompts.
    """

    refusal_chance: NDArray[np.float64]
    divergence: NDArray[np.float64]


Trial = Callable[[Sequence[Intervention]], TrialResult]
"""Tests fitted candidates at strength 1, on discovery prompts only."""


@dataclass(frozen=True)
class Material:
    """The material that methods are fitted from. Expensive parts are computed only when a method asks for them.

    Args:
        model: the loaded model, held by the caller.
        circuit: for methods on its neurons.
        record: returns the discovery prompts' activations.
        trial: tests candidates.
        stop: stops the fitting.
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
            raise CircuitError(f"{method.label} needs a circuit: give one.")
        self.circuit.check_model(self.model.identity)
        return self.circuit

    def needed_activations(self, method: type[Intervention]) -> Activations:
        """The discovery prompts' activations, from the cache or recorded now.

        Raises:
            CircuitError: there are no discovery prompts to record.
        """
        if self.record is None:
            raise CircuitError(f"{method.label} is fitted on discovery prompts: fit it with cna_core.fit first.")
        return self.record()

    def needed_trial(self, method: type[Intervention]) -> Trial:
        """The function that tests candidates.

        Raises:
            CircuitError: there is none.
        """
        if self.trial is None:
            raise CircuitError(f"{method.label} is fitted on discovery prompts: fit it with cna_core.fit first.")
        return self.trial

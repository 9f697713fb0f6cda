"""A circuit: neurons in rank order, with the settings and prompts that selected them.

attribution.py selects circuits, circuit_file.py defines their file format, the interventions room applies them.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.circuit_file import (
    CircuitFile,
    CircuitPrompts,
    CircuitSettings,
    NeuronEntry,
    Score,
    parse,
    read_text,
)
from cna_core.drawing import plot
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.paths import path_named, written_beside

if TYPE_CHECKING:  # the first page is drawn before pandas is imported
    import pandas as pd

__all__ = ["Circuit", "CircuitPrompts", "CircuitSettings", "Score"]


@dataclass(frozen=True)
class Circuit:
    """Neurons in rank order; every array is (n,).

    Args:
        model: the model it belongs to.
        settings: how it was selected; `settings.top_k` is its size.
        prompts: the prompts that it was found with.
        layers, neurons: int64.
        delta, positive_mean, negative_mean, effect_size: float32; NaN if unknown (a random circuit without activations,
            a file of another tool).
        effect: float32, the estimated change of the refusal log-odds when the neuron is ablated; None if the circuit
            was not found by effect.
    """

    model: ModelIdentity
    settings: CircuitSettings
    prompts: CircuitPrompts
    layers: NDArray[np.int64]
    neurons: NDArray[np.int64]
    delta: NDArray[np.float32]
    positive_mean: NDArray[np.float32]
    negative_mean: NDArray[np.float32]
    effect_size: NDArray[np.float32]
    effect: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        final = f"{100 * self.concentration(0.10):.0f} % in the final 10 % of layers" if len(self) else "empty"
        return f"Circuit({len(self):,} neurons of {self.model.name} by {self.settings.score}, {final})"

    @property
    def flat(self) -> NDArray[np.int64]:
        """(n,) positions on the flat neuron axis of the model's layout, in rank order."""
        return self.model.layout.flat(self.layers, self.neurons)

    @property
    def layer_counts(self) -> NDArray[np.int64]:
        """(layers,) int64: neurons of the circuit in each layer of the model."""
        return np.bincount(self.layers, minlength=self.model.layers)

    @property
    def sha256(self) -> str:
        """Hash of the model's name and revision and of the neurons in rank order, not of the settings."""
        digest = hashlib.sha256(f"{self.model.name}\n{self.model.revision}\n".encode())
        digest.update(np.stack([self.layers, self.neurons]).astype("<i8").tobytes())
        return digest.hexdigest()

    def concentration(self, final: float | int = 0.10) -> float:
        """Share of the circuit in the final part: a share of the layers (0.10), or a number of layers (3)."""
        return float((self.layers >= self.model.layout.first_layer_of_final(final)).mean())

    def overlap(self, other: "Circuit") -> float:
        """Jaccard index of the two sets of neurons, 0 to 1."""
        mine, theirs = _pairs(self), _pairs(other)
        return len(mine & theirs) / len(mine | theirs)

    def shared_by_chance(self, other: "Circuit") -> float:
        """How many neurons two random circuits share on average that have as many in each layer as these two."""
        widths = np.array(self.model.layout.widths)
        return float((self.layer_counts * other.layer_counts / widths).sum())

    def part(self, places: slice | NDArray) -> "Circuit":
        """The circuit's neurons at these ranks (from 0), or where a (n,) bool array says so, with the same settings."""
        return replace(
            self,
            layers=self.layers[places],
            neurons=self.neurons[places],
            delta=self.delta[places],
            positive_mean=self.positive_mean[places],
            negative_mean=self.negative_mean[places],
            effect_size=self.effect_size[places],
            effect=None if self.effect is None else self.effect[places],
        )

    def position_of(self, layer: int, neuron: int) -> int | None:
        """The neuron's position in rank order, from 0; None if it is not in the circuit."""
        found = np.flatnonzero((self.layers == layer) & (self.neurons == neuron))
        return int(found[0]) if len(found) else None

    def table(
        self,
        auc: NDArray[np.floating] | None = None,
        selection_frequency: NDArray[np.floating] | None = None,
    ) -> "pd.DataFrame":
        """The circuit as a table with one row for each neuron, in rank order.

        Args:
            auc, selection_frequency: (n,), further columns if given.
        """
        import pandas as pd

        columns: dict[str, NDArray] = {
            "rank": np.arange(1, len(self) + 1),
            "layer": self.layers,
            "neuron": self.neurons,
            "delta": self.delta,
            "positive_mean": self.positive_mean,
            "negative_mean": self.negative_mean,
            "effect_size": self.effect_size,
        }
        if self.effect is not None:
            columns["effect"] = self.effect
        if auc is not None:
            columns["auc"] = auc
        if selection_frequency is not None:
            columns["selection_frequency"] = selection_frequency
        return pd.DataFrame(columns)

    def plot(self, activations: Any = None, *, dark: bool = False) -> Any:
        """Its neurons in each layer as a Plotly figure, or, with `activations`, on the map of all neurons."""
        return plot(self, activations=activations, dark=dark)

    def check_model(self, identity: ModelIdentity) -> None:
        """Check that this circuit can be applied to a model.

        Names are compared by their last part, so that a model from the Hub and one in a local folder can be the same.
        Revisions are compared only if both are known. The dtype may differ.

        Raises:
            CircuitError: it belongs to another model.
        """
        mine, theirs = self.model, identity
        advice = "find the circuit again on this model, or load the model it was made with."
        if mine.layout.widths != theirs.layout.widths:
            raise CircuitError(
                f"This circuit belongs to {mine.name} ({_shape(mine)} neurons), "
                f"not to {theirs.name} ({_shape(theirs)}); {advice}"
            )
        known = mine.revision.startswith("local") == theirs.revision.startswith("local")  # a hash of the same kind
        if known and mine.revision == theirs.revision:
            return
        if Path(mine.name).name.lower() != Path(theirs.name).name.lower():
            raise CircuitError(f"This circuit belongs to {mine.name}, not to {theirs.name}; {advice}")
        if known:
            revisions = f"revision {mine.revision[:12]} of {mine.name}, not to {theirs.revision[:12]}"
            raise CircuitError(f"This circuit belongs to {revisions}; {advice}")

    def transferred_to(self, identity: ModelIdentity) -> "Circuit":
        """The same neurons as a circuit of another model with the same layers, such as a base model.

        Whether they mean the same there is for measurements to say; `settings.transferred_from` names where they were
        found. A circuit of that very model is returned as it is. Its figures (δ and so on) stay those of the source.

        Raises:
            CircuitError: the other model has other layers.
        """
        if self.model.layout.widths != identity.layout.widths:
            raise CircuitError(
                f"This circuit of {self.model.name} ({_shape(self.model)} neurons) cannot be transferred to "
                f"{identity.name} ({_shape(identity)}): the layers differ."
            )
        try:
            self.check_model(identity)
        except CircuitError:
            source = self.settings.transferred_from or self.model.name
            settings = self.settings.model_copy(update={"transferred_from": source})
            return replace(self, model=identity, settings=settings)
        return self

    def to_json(self) -> str:
        """The circuit in the format cna-circuit/1, ending with a line break."""
        effect = np.full(len(self), np.nan, dtype=np.float32) if self.effect is None else self.effect
        figures = (self.delta, self.positive_mean, self.negative_mean, self.effect_size, effect)
        entries = [
            NeuronEntry(
                layer=layer,
                neuron=neuron,
                delta=delta,
                positive_mean=positive,
                negative_mean=negative,
                effect_size=effect_size,
                effect=effect,
            )
            for layer, neuron, delta, positive, negative, effect_size, effect in zip(
                self.layers.tolist(), self.neurons.tolist(), *map(_known, figures), strict=True
            )
        ]
        settings = self.settings.model_copy(update={"top_k": len(self)})
        file = CircuitFile(model=self.model, settings=settings, prompts=self.prompts, neurons=entries)
        return file.to_json() + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the circuit to a file of format cna-circuit/1 and return its path.

        Raises:
            CircuitError: the file cannot be written.
        """
        path = Path(path)
        try:
            with written_beside(path) as draft:
                draft.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise CircuitError(f"{path} cannot be written ({error.strerror or error}); choose another path.") from error
        return path

    @classmethod
    def from_json(cls, text: str | bytes, model: ModelIdentity | None = None, name: str = "The file") -> "Circuit":
        """A circuit from the text of its file.

        Args:
            text: cna-circuit/1, or the JSON that neural-steering writes (its values become δ, the rest is unknown).
            model: the model that a neural-steering circuit belongs to, because its file does not name it.
            name: the file's name in errors.

        Raises:
            CircuitError: the text is damaged, too large, of an unknown version, or not a circuit.
        """
        file = parse(text, model, name)
        entries = file.neurons
        effects = [entry.effect for entry in entries]
        return cls(
            model=file.model,
            settings=file.settings.model_copy(update={"top_k": len(entries)}),
            prompts=file.prompts,
            layers=np.array([entry.layer for entry in entries], dtype=np.int64),
            neurons=np.array([entry.neuron for entry in entries], dtype=np.int64),
            delta=_floats([entry.delta for entry in entries]),
            positive_mean=_floats([entry.positive_mean for entry in entries]),
            negative_mean=_floats([entry.negative_mean for entry in entries]),
            effect_size=_floats([entry.effect_size for entry in entries]),
            effect=None if all(value is None for value in effects) else _floats(effects),
        )

    @classmethod
    def load(cls, path: str | Path, model: ModelIdentity | None = None) -> "Circuit":
        """Read a circuit file; arguments and errors as for `from_json`."""
        path = path_named(path)
        return cls.from_json(read_text(path), model, path.name)


def _pairs(circuit: Circuit) -> set[tuple[int, int]]:
    return set(zip(circuit.layers.tolist(), circuit.neurons.tolist(), strict=True))


def _shape(identity: ModelIdentity) -> str:
    widths = identity.layout.widths
    same = len(set(widths)) == 1
    return f"{len(widths)} × {widths[0]:,}" if same else f"{len(widths)} layers of {min(widths):,} to {max(widths):,}"


def _known(values: NDArray[np.float32]) -> list[float | None]:
    """Python floats with the fewest digits that identify the float32 values; None for values that are not finite."""
    return [float(str(value)) if np.isfinite(value) else None for value in values]


def _floats(values: list[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)

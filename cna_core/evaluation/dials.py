"""What a sweep can turn: methods fitted to circuits of several sizes, their random twins; and a lane for each setting.

Knows nothing about measures, batches or journals.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Lane
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.errors import CircuitError, RunError
from cna_core.evaluation.fitting import fit
from cna_core.evaluation.setting import Setting, Treatment
from cna_core.interventions.intervention import Intervention
from cna_core.interventions.registry import method
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import ContrastSet

PREFIX_BYTES = 1 << 30
"""How much of what was read is kept: the template's beginning of an 8B model takes about 3 MB a setting."""


@dataclass(frozen=True)
class Dials:
    """Everything that a setting may name.

    Args:
        fitted: each method and twin that is measured; by size where it acts on a circuit, else under None.
        prefixes: what the model has read under each setting: the template's beginning is read once for all prompts.
    """

    fitted: dict[tuple[Treatment, float | None], Intervention]
    prefixes: PrefixCaches | None = None

    def lane(self, messages: Sequence[Message], setting: Setting) -> Lane:
        """The conversation, steered as the setting says."""
        if setting.is_baseline:
            return Lane(messages)
        return Lane(messages, setting.strength, self.fitted[setting.treatment, setting.fraction])


def dials_for(
    model: LoadedModel,
    circuits: dict[float, Circuit],
    treatments: Sequence[Treatment],
    seed: int,
    contrast: ContrastSet | None,
    others: Mapping[str, Circuit] | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Dials:
    """Methods fitted to the circuits and the discovery prompts, and their random twins (drawn with `seed`).

    Args:
        circuits: by fraction.
        contrast: the discovery prompts; None only where no method needs them.
        others: further circuits, by name.

    Raises:
        CircuitError: a circuit belongs to another model, or a layer is too small for a random twin.
        RunError: a method needs the discovery prompts.
        StoppedError: `stop` was set.
    """
    fitted: dict[tuple[Treatment, float | None], Intervention] = {}
    for key in dict.fromkeys(treatment.owner for treatment in treatments):
        if contrast is None and method(key).uses_prompts:
            raise RunError(f"{method(key).label} is fitted on the discovery prompts; give them, or leave it out.")
        acted_on: list[tuple[str | None, float | None, Circuit | None]] = [(None, None, None)]
        if method(key).uses_circuit:
            acted_on = [(None, fraction, circuit) for fraction, circuit in circuits.items()]
            acted_on += [(name, None, circuit) for name, circuit in (others or {}).items()]
        for name, fraction, circuit in acted_on:
            treatment = Treatment(key, circuit=name)
            mine = fit(model, key, circuit, contrast, progress=progress, stop=stop)
            fitted[treatment, fraction] = mine
            if treatment.twin in treatments:
                fitted[treatment.twin, fraction] = mine.twin(seed)
    return Dials(fitted, PrefixCaches(model, PREFIX_BYTES))


def circuits_by_fraction(
    source: Circuit | Activations, fractions: Sequence[float] | None = None, activations: Activations | None = None
) -> dict[float, Circuit]:
    """The circuit of each fraction, by fraction ascending.

    Args:
        source: a circuit, or activations to select one from (0.1 % where no fractions are given).
        fractions: shares of all neurons; None: the circuit's own.
        activations: what the circuit was selected from; needed only for fractions larger than its own, which are then
            selected by its settings. A smaller one is the beginning of its ranking.

    Raises:
        CircuitError: a larger circuit is asked for than is known, or a fraction is out of range.
    """
    if isinstance(source, Activations):
        wanted = sorted(set(fractions or (0.001,)))
        return {_checked(fraction): attribute(source, fraction=fraction) for fraction in wanted}
    if not fractions:
        return {fraction_of(source): source}
    return {fraction: _of_fraction(source, _checked(fraction), activations) for fraction in sorted(set(fractions))}


def fraction_of(circuit: Circuit) -> float:
    """The circuit's share of all neurons: as it was asked for where that gives its size, else its size over all."""
    total = circuit.model.layout.total
    asked = circuit.settings.fraction
    if asked is not None and max(1, round(asked * total)) == len(circuit):
        return asked
    return float(f"{len(circuit) / total:.4g}")


def first_neurons(circuit: Circuit, size: int) -> Circuit:
    """The circuit of its first `size` neurons in rank order: what the same selection would give at that size."""
    settings = circuit.settings.model_copy(update={"top_k": size, "fraction": None})
    return replace(circuit.part(slice(size)), settings=settings)


def _of_fraction(circuit: Circuit, fraction: float, activations: Activations | None) -> Circuit:
    size = max(1, round(fraction * circuit.model.layout.total))
    if size == len(circuit):
        return circuit
    if size < len(circuit):
        return first_neurons(circuit, size)
    if activations is None or circuit.settings.score == "attribution-patching":  # which activations do not hold
        raise CircuitError(
            f"A circuit of {len(circuit):,} neurons has no {size:,} to offer for {100 * fraction:g} %; "
            "find a larger circuit, or leave that size out."
        )
    chosen = circuit.settings
    return attribute(
        activations,
        fraction=fraction,
        score=chosen.score,
        skip_layers=chosen.skip_layers,
        universal_threshold=chosen.universal_threshold,
        universal_fraction=chosen.universal_fraction,
    )


def _checked(fraction: float) -> float:
    if not 0 < fraction <= 0.5:
        raise CircuitError(f"A circuit's share of all neurons lies between 0 and 50 %, not at {100 * fraction:g} %.")
    return fraction

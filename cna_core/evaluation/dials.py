"""The fitted methods of a sweep: each method fitted to circuits of several sizes, with random twins.

It also makes the lane for each setting. This module knows nothing about measures, batches or journals.
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
"""The size limit of kept prefixes: the start of the chat template takes about 3 MB per setting in an 8B model."""


@dataclass(frozen=True)
class Dials:
    """The fitted methods that settings refer to.

    Args:
        fitted: each measured method and twin, by circuit size if it acts on a circuit, else under None.
        prefixes: the prefix caches of each setting: the start of the chat template is computed once for all prompts.
    """

    fitted: dict[tuple[Treatment, float | None], Intervention]
    prefixes: PrefixCaches | None = None

    def lane(self, messages: Sequence[Message], setting: Setting, thinking: bool = False) -> Lane:
        """The lane for the conversation under this setting; `thinking` as in `Lane`."""
        if setting.is_baseline:
            return Lane(messages, thinking=thinking)
        fitted = self.fitted[setting.treatment, setting.fraction]
        return Lane(messages, setting.strength, fitted, thinking=thinking)


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
    """Fit the methods to the circuits and the discovery prompts, with random twins (drawn with `seed`).

    Args:
        circuits: the circuits by fraction.
        contrast: the discovery prompts; may be None if no method needs them.
        others: further circuits, by name.

    Raises:
        CircuitError: a circuit belongs to another model, or a layer is too small for a random twin.
        RunError: a method needs the discovery prompts.
        StoppedError: `stop` was set.
    """
    fitted: dict[tuple[Treatment, float | None], Intervention] = {}
    for key in dict.fromkeys(treatment.owner for treatment in treatments):
        if contrast is None and method(key).uses_prompts:
            raise RunError(f"{method(key).label} is fitted on the discovery prompts: pass them, or remove this method.")
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
    """The circuit of each fraction, in ascending order.

    Args:
        source: a circuit, or activations to select one from (0.1 % if no fractions are given).
        fractions: shares of all neurons; None: the circuit's own share.
        activations: the activations from which the circuit was selected. They are needed only for larger fractions,
            which are selected with the circuit's settings; a smaller circuit is the first part of its ranking.

    Raises:
        CircuitError: a fraction is larger than the circuit and there are no activations, or it is out of range.
    """
    if isinstance(source, Activations):
        wanted = sorted(set(fractions or (0.001,)))
        return {_checked(fraction): attribute(source, fraction=fraction) for fraction in wanted}
    if not fractions:
        return {fraction_of(source): source}
    return {fraction: _of_fraction(source, _checked(fraction), activations) for fraction in sorted(set(fractions))}


def fraction_of(circuit: Circuit) -> float:
    """The circuit's share of all neurons: the requested fraction if it gives this size, else the exact share."""
    total = circuit.model.layout.total
    asked = circuit.settings.fraction
    if asked is not None and max(1, round(asked * total)) == len(circuit):
        return asked
    return float(f"{len(circuit) / total:.4g}")


def first_neurons(circuit: Circuit, size: int) -> Circuit:
    """The circuit of the first `size` neurons in rank order: the same selection at that size."""
    settings = circuit.settings.model_copy(update={"top_k": size, "fraction": None})
    return replace(circuit.part(slice(size)), settings=settings)


def _of_fraction(circuit: Circuit, fraction: float, activations: Activations | None) -> Circuit:
    size = max(1, round(fraction * circuit.model.layout.total))
    if size == len(circuit):
        return circuit
    if size < len(circuit):
        return first_neurons(circuit, size)
    transferred = circuit.settings.transferred_from is not None  # the activations are from another model
    if (
        activations is None or transferred or circuit.settings.score == "attribution-patching"
    ):  # which activations do not contain
        raise CircuitError(
            f"{100 * fraction:g} % is {size:,} neurons, but the circuit has only {len(circuit):,}; find a larger "
            "circuit, or remove this size."
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
        raise CircuitError(f"A circuit's share of all neurons must be between 0 and 50 %, not {100 * fraction:g} %.")
    return fraction

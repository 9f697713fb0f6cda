"""Settings: how the model is steered during a measurement, and all settings of a sweep.

Settings name methods by their keys (interventions/registry.py). This module knows nothing about measures, files or
loaded models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cna_core.errors import RunError
from cna_core.interventions.registry import DEFAULT_METHOD, TWIN, label_of, method
from cna_core.limits import require_allowed


class Treatment(NamedTuple):
    """A method, or the random twin of a method, without a strength. Each curve shows one treatment.

    Args:
        method: the method's key; "random" for a twin.
        twin_of: the key of the method that a twin belongs to.
        circuit: the name of the circuit, if it is not the run's first one.
    """

    method: str
    twin_of: str | None = None
    circuit: str | None = None

    @property
    def is_twin(self) -> bool:
        return self.twin_of is not None

    @property
    def owner(self) -> str:
        """The key of the method, or of the method that the twin belongs to."""
        return self.twin_of or self.method

    @property
    def key(self) -> str:
        """The name for traces and widgets: "scale", or "random-scale" for the twin."""
        key = f"{self.method}-{self.twin_of}" if self.twin_of else self.method
        return f"{key}-{self.circuit}" if self.circuit else key

    @property
    def label(self) -> str:
        """The name in charts and tables; for methods that are not registered here, the key."""
        label = label_of(self.method, self.twin_of)
        return f"{label}, {self.circuit}" if self.circuit else label

    @property
    def twin(self) -> "Treatment":
        """The random twin of this method."""
        return Treatment(TWIN, self.owner, self.circuit)


@dataclass(frozen=True)
class Setting:
    """One way in which the model is steered.

    Args:
        method: a method's key, or "random" for the random twin of one.
        strength: 0 baseline, 1 ablated, 2 inverted; each method defines what that means.
        fraction: the circuit's share of all neurons; None for methods without a circuit, and for the baseline.
        twin_of: the method whose random twin this is; None if it is not a twin.
        circuit: the name of the circuit, if it is not the run's first one; such a circuit has one size and no fraction.

    Raises:
        RunError: a twin without `twin_of`, or `twin_of` for a method that is not a twin.
    """

    method: str = DEFAULT_METHOD
    strength: float = 0.0
    fraction: float | None = None
    twin_of: str | None = None
    circuit: str | None = None

    def __post_init__(self) -> None:
        if (self.method == TWIN) != (self.twin_of is not None):
            raise RunError(
                f"A control must have the method {TWIN!r} and its own method in twin_of; others have no twin_of."
            )

    @property
    def is_baseline(self) -> bool:
        return self.strength == 0

    @property
    def treatment(self) -> Treatment:
        return Treatment(self.method, self.twin_of, self.circuit)


BASELINE = Setting()
DEFAULT_TREATMENT = BASELINE.treatment
"""The paper's method."""


def settings_of(
    strengths: Sequence[float],
    fractions: Sequence[float],
    methods: Sequence[str],
    controls: Sequence[str] = (),
    others: Iterable[str] = (),
) -> tuple[Setting, ...]:
    """Every setting of a sweep: the baseline, then each method followed by its twin, with ascending strengths.

    Args:
        fractions: circuit sizes, for methods that use a circuit.
        methods: keys, in the order of measurement.
        controls: the methods whose random twins are also measured.
        others: names of further circuits, for methods that use a circuit.

    Raises:
        RunError: there are no strengths.
        StrengthError: a strength is not allowed here (`cna_core.limits`).
        CnaError: a method is not registered.
    """
    wanted = sorted({round(float(strength), 6) for strength in strengths})
    if not wanted:
        raise RunError("A sweep needs at least one strength.")
    require_allowed(wanted)
    treatments: list[Treatment] = []
    for key in methods:
        treatments += [Treatment(key), Treatment(TWIN, key)] if key in controls else [Treatment(key)]
    first: list[tuple[float | None, str | None]] = [(fraction, None) for fraction in fractions]
    circuits = [*first, *((None, name) for name in others)]
    steered = [
        Setting(treatment.method, strength, fraction, treatment.twin_of, circuit)
        for treatment in treatments
        for fraction, circuit in (circuits if method(treatment.owner).uses_circuit else [(None, None)])
        for strength in wanted
        if strength != 0
    ]
    return (BASELINE, *steered)

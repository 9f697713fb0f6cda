"""How the model is steered while something is measured: one setting, and all settings of a sweep.

Names methods by their keys (interventions/registry.py). Knows nothing about measures, files or models in memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cna_core.errors import RunError
from cna_core.interventions.registry import DEFAULT_METHOD, TWIN, label_of, method
from cna_core.limits import require_allowed


class Treatment(NamedTuple):
    """What is done to the model, at whatever strength: a method, or the random twin of one. A curve shows one.

    Args:
        method: its key; "random" for a twin.
        twin_of: the key of the method that a twin belongs to.
        circuit: the name of the circuit, where it is not the run's first one.
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
        """The name of its traces and widgets: "scale", and "random-scale" for the twin."""
        key = f"{self.method}-{self.twin_of}" if self.twin_of else self.method
        return f"{key}-{self.circuit}" if self.circuit else key

    @property
    def label(self) -> str:
        """What charts and tables call it; a method that is not registered here is called by its key."""
        label = label_of(self.method, self.twin_of)
        return f"{label}, {self.circuit}" if self.circuit else label

    @property
    def twin(self) -> "Treatment":
        """The control of this method."""
        return Treatment(TWIN, self.owner, self.circuit)


@dataclass(frozen=True)
class Setting:
    """One way in which the model is steered.

    Args:
        method: a method's key, or "random" for the random twin of one.
        strength: 0 baseline, 1 ablated, 2 inverted; what that means is the method's business.
        fraction: the circuit's share of all neurons; None for methods without a circuit, and for the baseline.
        twin_of: the method whose random twin this is; None for a method itself.
        circuit: the name of the circuit, where it is not the run's first one; it has one size, so no fraction.

    Raises:
        RunError: it names a twin of nothing, or says of a method that it is another one's twin.
    """

    method: str = DEFAULT_METHOD
    strength: float = 0.0
    fraction: float | None = None
    twin_of: str | None = None
    circuit: str | None = None

    def __post_init__(self) -> None:
        if (self.method == TWIN) != (self.twin_of is not None):
            raise RunError(f"A control is named {TWIN!r} and names its own method in twin_of; others have none.")

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
    """Every setting of a sweep once: the baseline first, then each method followed by its twin, strengths ascending.

    Args:
        fractions: circuit sizes, for the methods that use a circuit.
        methods: keys, in the order in which they are measured.
        controls: the methods whose random twins are measured too.
        others: names of further circuits, for the methods that use a circuit.

    Raises:
        RunError: there are no strengths.
        StrengthError: one is not allowed here (`cna_core.limits`).
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

"""What the endpoint calls a model: `baseline`, or a circuit's name with a strength, like `gate@1.0`."""

import math
import re
from collections.abc import Mapping, Sequence

from cna_core.errors import CnaError, PromptError
from cna_core.evaluation.gate_meter import METER_STRENGTHS
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.intervention import Intervention
from cna_core.limits import allowed, require_allowed

BASELINE = "baseline"
ONLY_NAME = "gate"
"""What a single circuit is called that was given no name."""
LISTED_STRENGTHS = (-1.0, 0.5, 1.0, 1.5, 2.0)
"""Those that `/v1/models` lists; any other allowed one works as well."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class UnknownModelError(PromptError):
    """There is no model of that name here."""

    code = "model_not_found"


class NamedModels:
    """The models that one endpoint offers: the baseline, and each intervention at any allowed strength.

    Args:
        interventions: by name.
    """

    def __init__(self, interventions: Mapping[str, Intervention]) -> None:
        self.interventions = dict(interventions)

    def listed(self) -> list[str]:
        """The names that `/v1/models` shows."""
        strengths = allowed(LISTED_STRENGTHS)
        return [BASELINE, *(f"{name}@{strength}" for name in self.interventions for strength in strengths)]

    def change(self, model: str) -> RowChange:
        """How a row is changed for a model of that name.

        Raises:
            UnknownModelError: there is none.
            StrengthError: its strength is not allowed here.
        """
        if model == BASELINE:
            return NEUTRAL
        name, _, text = model.partition("@")
        try:
            strength = float(text)
        except ValueError:
            strength = math.nan
        if name not in self.interventions or math.isnan(strength):
            raise UnknownModelError(
                f"There is no model {model[:80]!r} here: choose {BASELINE}, or "
                f"{' or '.join(f'{known}@S' for known in self.interventions)} with a strength S like 1.0."
            )
        require_allowed(strength)
        return self.interventions[name].change(strength)

    def strengths(self, wanted: Sequence[float] | None) -> list[float]:
        """The strengths at which a prompt's refusal chance is read: those that are wanted, or the usual allowed ones.

        Raises:
            StrengthError: a wanted one is not allowed here.
        """
        if wanted is None:
            return list(allowed(METER_STRENGTHS))
        require_allowed(list(wanted))
        return list(wanted)


def named_circuits(given: Sequence[str]) -> dict[str, str]:
    """Circuit files by name, from what `--circuit` was given: FILE once, or NAME=FILE any number of times.

    Raises:
        CnaError: a name is missing, given twice, or has other characters than letters, digits, ".", "_" and "-".
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = ONLY_NAME, text
        if not _NAME.fullmatch(name) or name == BASELINE:
            raise CnaError(f"{name!r} is no name for a circuit: use letters, digits, '.', '_' and '-'.")
        if name in found:
            raise CnaError(f"Two circuits are called {name!r}: name each, as in --circuit {name}2=FILE.")
        found[name] = file
    return found

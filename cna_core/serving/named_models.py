"""The endpoint's model names: `baseline`, or a circuit's name with a strength, like `gate@1.0`."""

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
"""The name of a single circuit without a name."""
LISTED_STRENGTHS = (-1.0, 0.5, 1.0, 1.5, 2.0)
"""The strengths that `/v1/models` lists; every other allowed strength also works."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class UnknownModelError(PromptError):
    """This endpoint has no model of that name."""

    code = "model_not_found"


class NamedModels:
    """The models of one endpoint: the baseline, and each intervention at every allowed strength.

    Args:
        interventions: the interventions by name.
    """

    def __init__(self, interventions: Mapping[str, Intervention]) -> None:
        self.interventions = dict(interventions)

    def listed(self) -> list[str]:
        """The names that `/v1/models` lists."""
        strengths = allowed(LISTED_STRENGTHS)
        return [BASELINE, *(f"{name}@{strength}" for name in self.interventions for strength in strengths)]

    def change(self, model: str) -> RowChange:
        """The steering of a row for the model of that name.

        Raises:
            UnknownModelError: there is no such model.
            StrengthError: the strength is not allowed here.
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
        """The strengths for measuring a refusal chance: the requested ones, or the allowed default ones.

        Raises:
            StrengthError: a requested strength is not allowed here.
        """
        if wanted is None:
            return list(allowed(METER_STRENGTHS))
        require_allowed(list(wanted))
        return list(wanted)


def named_circuits(given: Sequence[str]) -> dict[str, str]:
    """Circuit files by name, from the values of `--circuit`: FILE once, or NAME=FILE any number of times.

    Raises:
        CnaError: a name is missing, repeated, or has characters other than letters, digits, ".", "_" and "-".
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = ONLY_NAME, text
        if not _NAME.fullmatch(name) or name == BASELINE:
            raise CnaError(f"{name!r} is not a valid circuit name: use letters, digits, '.', '_' and '-'.")
        if name in found:
            raise CnaError(f"Two circuits have the name {name!r}: rename one, as in --circuit {name}2=FILE.")
        found[name] = file
    return found

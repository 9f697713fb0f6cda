"""The list of checks, in the order in which they run and are shown."""

from cna_core.errors import CnaError
from cna_core.evaluation.checks.contract import Check
from cna_core.evaluation.checks.estimate_and_truth import EstimateAndTruth
from cna_core.evaluation.checks.first_person import FirstPerson
from cna_core.evaluation.checks.forced_opening import ForcedOpening
from cna_core.evaluation.checks.harm_done import HarmDone
from cna_core.evaluation.checks.late_refusal import LateRefusal
from cna_core.evaluation.checks.null_circuits import NullCircuits
from cna_core.evaluation.checks.stability import Stability
from cna_core.evaluation.checks.swapped_source import SwappedSource
from cna_core.evaluation.checks.token_ban import TokenBan
from cna_core.evaluation.checks.transfer import Transfer

CHECKS: dict[str, type[Check]] = {
    check.key: check
    for check in (
        TokenBan,
        ForcedOpening,
        FirstPerson,
        SwappedSource,
        LateRefusal,
        NullCircuits,
        Stability,
        Transfer,
        EstimateAndTruth,
        HarmDone,
    )
}


def checks_named(keys: tuple[str, ...] | None = None) -> list[Check]:
    """The checks with these keys, or all of them, in the list's order.

    Raises:
        CnaError: a key is unknown.
    """
    for key in keys or ():
        if key not in CHECKS:
            raise CnaError(f"There is no check called '{key}': use {', '.join(CHECKS)}.")
    return [check() for key, check in CHECKS.items() if keys is None or key in keys]

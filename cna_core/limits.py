"""What is allowed here: one answer for the library, the command line, the pages, run files and the endpoint.

Whoever lets other people use this project sets environment variables. A strength above 0 makes a model refuse less:
with CNA_STRENGTH_LIMIT=0 only 0 (the model as it is) and strengths below 0 (amplified) are possible. With
CNA_REMOTE_CODE=0 nobody can run Python code that comes with a model.
"""

import math
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from cna_core.errors import ModelError, StrengthError

VARIABLE = "CNA_STRENGTH_LIMIT"
REMOTE_CODE_VARIABLE = "CNA_REMOTE_CODE"
FARTHEST = 100.0
"""The largest strength, above and below 0, where the variable is not set."""


def strength_limit() -> float:
    """The largest strength that is allowed, 0 to `FARTHEST`.

    Raises:
        StrengthError: the environment variable is not such a number.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return FARTHEST
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit <= FARTHEST:
        raise StrengthError(f"{VARIABLE} is {text!r}: set it to a number from 0 to {FARTHEST:g}, or leave it unset.")
    return limit


def require_allowed(*strengths: ArrayLike) -> None:
    """Check strengths, numbers or arrays, before anything is steered with them.

    Raises:
        StrengthError: one is above the limit, below −`FARTHEST`, or no number.
    """
    limit = strength_limit()
    for values in map(np.asarray, strengths):
        if not np.all(np.abs(values) <= FARTHEST):  # also where a value is not a number
            raise StrengthError(f"A strength lies between −{FARTHEST:g} and {FARTHEST:g}: 0 baseline, 1 ablated.")
        if np.any(values > limit):
            raise StrengthError(
                f"Strength {np.max(values):g} is not allowed here: choose one of at most {limit:g} ({VARIABLE})."
            )


def allowed(strengths: Iterable[float]) -> tuple[float, ...]:
    """Those of the strengths that are allowed, in their order."""
    limit = strength_limit()
    return tuple(strength for strength in strengths if strength <= limit)


def remote_code_allowed() -> bool:
    """Whether Python code that comes with a model may run, where the person who loads it agrees."""
    return os.environ.get(REMOTE_CODE_VARIABLE, "").strip() != "0"


def require_remote_code_allowed(wanted: bool) -> None:
    """Check `trust_remote_code` before anything is fetched.

    Raises:
        ModelError: it is wanted and not allowed.
    """
    if wanted and not remote_code_allowed():
        raise ModelError(
            f"Code that comes with a model is not run here ({REMOTE_CODE_VARIABLE}=0): choose a model that needs none."
        )

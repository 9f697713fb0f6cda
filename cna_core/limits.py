"""The limits of an installation, for the library, the command line, the pages, run files and the endpoint alike.

Set these environment variables before you let other people use this project. Strengths above 0 make a model refuse
less: CNA_STRENGTH_LIMIT=0 allows only 0 (the unchanged model) and strengths below 0 (amplified). CNA_REMOTE_CODE=0
forbids running Python code that comes with a model.
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
"""The largest absolute strength if the variable is not set."""


def strength_limit() -> float:
    """The largest strength that is allowed, 0 to `FARTHEST`.

    Raises:
        StrengthError: the environment variable is not a number in this range.
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
    """Check strengths (numbers or arrays) before they are used for steering.

    Raises:
        StrengthError: one is above the limit, below −`FARTHEST`, or not a number.
    """
    limit = strength_limit()
    for values in map(np.asarray, strengths):
        if not np.all(np.abs(values) <= FARTHEST):  # also where a value is not a number
            raise StrengthError(
                f"A strength must be between −{FARTHEST:g} and {FARTHEST:g} (0 is the baseline, 1 ablates the circuit)."
            )
        if np.any(values > limit):
            raise StrengthError(
                f"Strength {np.max(values):g} is not allowed here ({VARIABLE}): choose a strength of at most {limit:g}."
            )


def allowed(strengths: Iterable[float]) -> tuple[float, ...]:
    """The strengths that are allowed, in their order."""
    limit = strength_limit()
    return tuple(strength for strength in strengths if strength <= limit)


def remote_code_allowed() -> bool:
    """Whether Python code that comes with a model may run if the user agrees."""
    return os.environ.get(REMOTE_CODE_VARIABLE, "").strip() != "0"


def require_remote_code_allowed(wanted: bool) -> None:
    """Check `trust_remote_code` before anything is downloaded.

    Raises:
        ModelError: it is requested but not allowed.
    """
    if wanted and not remote_code_allowed():
        raise ModelError(
            f"This installation does not run code that comes with a model ({REMOTE_CODE_VARIABLE}=0): choose a model "
            "that needs none."
        )

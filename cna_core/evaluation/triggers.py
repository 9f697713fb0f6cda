"""Which prompts of a contrast set behave as their set says: a positive prompt is refused, a negative one answered.

By definition, a positive prompt *triggers* the behaviour (docs/method.md). If the model answers it nevertheless, it
dilutes δ with the topic of the request. This module also determines from which prompts a circuit was selected.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.evaluation.first_words import first_words
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.sets import ContrastSet

FEWEST = 8
"""The fewest prompts that must remain on each side."""


def triggered(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> NDArray[np.bool_]:
    """(prompts,) bool, positive prompts first: whether the unsteered model behaved as the prompt's set says.

    The judged words are stored on disk (first_words.py). Remove the other prompts with
    `activations.without(numpy.flatnonzero(~triggered(…)))`.

    Raises:
        CircuitError: fewer than `FEWEST` prompts of a side would remain.
        StoppedError: `stop` was set.
    """
    heard = first_words(model, contrast, progress=progress, stop=stop)
    refused = [detect_refusal(opening.words()).refused for opening in heard]
    did = np.array(refused, dtype=bool) == contrast.is_positive
    sides = {
        "positive prompts are refused": contrast.is_positive,
        "negative prompts are answered": ~contrast.is_positive,
    }
    for words, side in sides.items():
        if did[side].sum() < FEWEST:
            raise CircuitError(
                f"Only {did[side].sum()} {words} by {model.name}, fewer than {FEWEST}; keep all or choose others."
            )
    return did


def activations_of(
    model: LoadedModel,
    circuit: Circuit,
    contrast: ContrastSet | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Activations | None:
    """The activations from which a circuit was selected: of a whole contrast set, or of its triggering prompts.

    The hash in the circuit decides which. None if it was neither.

    Args:
        contrast: the prompts with which it was probably found; None: the built-in prompts.

    Raises:
        StoppedError: `stop` was set.
    """
    contrast = contrast or ContrastSet.builtin()
    wanted = circuit.prompts
    if contrast.sha256 == wanted.sha256:
        return capture(model, contrast, progress=progress, stop=stop)
    if not (
        FEWEST <= wanted.positive <= len(contrast.positive) and FEWEST <= wanted.negative <= len(contrast.negative)
    ):
        return None
    try:
        did = triggered(model, contrast, progress=progress, stop=stop)
    except CircuitError:  # too few prompts trigger, so no circuit was found with them
        return None
    sides = did[contrast.is_positive].sum(), did[~contrast.is_positive].sum()
    if sides != (wanted.positive, wanted.negative):
        return None
    found = capture(model, contrast, progress=progress, stop=stop).without(np.flatnonzero(~did))
    return found if found.sha256 == wanted.sha256 else None

"""Which prompts of a contrast set do what their set says: a positive prompt is refused, a negative one answered.

A positive prompt is by definition one that *triggers* the behaviour (docs/method.md). A request that this model answers
all the same dilutes δ with what the request is about. Also finds again which prompts a circuit was selected from.
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
"""Prompts that must be left on either side."""


def triggered(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> NDArray[np.bool_]:
    """(prompts,) bool, positive prompts first: whether the unsteered model did what the prompt's set says.

    The words that are judged are kept on disk (first_words.py). Leave the others out with
    `activations.without(numpy.flatnonzero(~triggered(…)))`.

    Raises:
        CircuitError: fewer than `FEWEST` prompts of a side would be left.
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
                f"Only {did[side].sum()} {words} by {model.name}, fewer than {FEWEST}; keep all or bring others."
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
    """The activations that a circuit was selected from: of a contrast set, or of those of its prompts that trigger.

    Which of the two it was is read off the hash that the circuit carries. None where it was neither.

    Args:
        contrast: what it was found with, as far as is known; None: the built-in prompts.

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
    except CircuitError:  # too few trigger for any circuit to have been found with them
        return None
    sides = did[contrast.is_positive].sum(), did[~contrast.is_positive].sum()
    if sides != (wanted.positive, wanted.negative):
        return None
    found = capture(model, contrast, progress=progress, stop=stop).without(np.flatnonzero(~did))
    return found if found.sha256 == wanted.sha256 else None

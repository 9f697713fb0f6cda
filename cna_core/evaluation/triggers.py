"""Which prompts of a contrast set do what their set says: a positive prompt is refused, a negative one answered.

METHOD: a positive prompt is one that *triggers* the behaviour. A request that this model answers all the same dilutes δ
with what the request is about. Knows nothing about neurons.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import CircuitError
from cna_core.evaluation.first_words import first_words
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, silent
from cna_core.prompts.sets import ContrastSet

FEWEST = 8
"""Prompts that must be left on either side."""


def triggered(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Progress = silent,
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

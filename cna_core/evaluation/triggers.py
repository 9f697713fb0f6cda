"""Which prompts of a contrast set do what their set says: a positive prompt is refused, a negative one answered.

METHOD: a positive prompt is one that *triggers* the behaviour. A request that this model answers all the same dilutes δ
with what the request is about. Knows nothing about neurons.
"""

import hashlib
import json
import threading

import numpy as np
from numpy.typing import NDArray

from cna_core.errors import CircuitError
from cna_core.evaluation.gate_meter import openings_of
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.loaded import LoadedModel
from cna_core.paths import cache_folder, written_beside
from cna_core.progress import Progress, silent
from cna_core.prompts.sets import ContrastSet

ANSWER_TOKENS = 24
"""Greedy tokens that are read of each answer: the detector looks at openings."""
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

    The outcome is kept on disk for the model and the prompts. Leave the others out with
    `activations.without(numpy.flatnonzero(~triggered(…)))`.

    Raises:
        CircuitError: fewer than `FEWEST` prompts of a side would be left.
        StoppedError: `stop` was set.
    """
    key = hashlib.sha256(f"{ANSWER_TOKENS}\n{model.identity.model_dump_json()}\n{contrast.sha256}".encode()).hexdigest()
    path = cache_folder("triggers") / f"{key[:32]}.json"
    if path.exists():
        refused = json.loads(path.read_text(encoding="utf-8"))
    else:
        answers = openings_of(model, contrast.prompts, ANSWER_TOKENS, progress=progress, stop=stop)
        refused = [detect_refusal(answer.words).refused for answer in answers]
        with written_beside(path) as draft:
            draft.write_text(json.dumps(refused), encoding="utf-8")
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

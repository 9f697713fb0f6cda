"""The first words of the unsteered model's answers to a contrast set: generated once and stored on disk.

The gate meter is calibrated with them, and triggers.py finds with them which prompts behave as their set says. Each
batch is stored when it is finished, so a stopped computation resumes there. This module knows nothing about refusals.
"""

import json
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.cached import ResultCache
from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import as_messages, encode, thinking_format
from cna_core.prompts.sets import ContrastSet

FORMAT = "cna-first-words/1"
WORDS_TOKENS = 24
"""Greedy tokens to generate for each answer: the detector only needs openings."""
BATCH_ROWS = 32
KEPT_TOKENS = 512
"""The number of first tokens whose probabilities are stored; the others count as never seen."""


@dataclass(frozen=True)
class Opening:
    """The beginning of the unsteered model's greedy answer to one prompt.

    Args:
        token: the first token.
        pieces: the text that each token adds.
        likely: (m,) int64, the likeliest first tokens.
        probabilities: (m,) float64, their probabilities.
    """

    token: int
    pieces: tuple[str, ...]
    likely: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    def words(self, tokens: int | None = None) -> str:
        """The text of the first `tokens` tokens, or of all of them."""
        return "".join(self.pieces[:tokens])


def first_words(
    model: LoadedModel,
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> list[Opening]:
    """The opening of the model's answer to each prompt of the set, in order; computed now or read from disk.

    Args:
        progress: receives the number of finished prompts.
        use_cache: False computes everything again and replaces the stored result.

    Raises:
        StoppedError: `stop` was set; finished batches are saved.
    """
    depends_on: list[object] = [FORMAT, WORDS_TOKENS, model.identity.model_dump(mode="json"), contrast.sha256]
    form = thinking_format(model)
    if form is not None and form.by_default and not form.has_switch:  # the prompts end with an empty thought
        depends_on.append(form.markers.empty)
    found = (_CACHE.find(*depends_on) if use_cache else None) or {}

    def keep(batch: dict[int, Opening]) -> None:
        found.update(batch)
        _CACHE.keep(found, *depends_on)

    missing = [place for place in range(len(contrast.prompts)) if place not in found]
    if missing:
        read_openings(model, contrast.prompts, places=missing, progress=progress, stop=stop, keep=keep)
    return [found[place] for place in range(len(contrast.prompts))]


def read_openings(
    model: LoadedModel,
    prompts: Sequence[str],
    *,
    places: Sequence[int] | None = None,
    tokens: int = WORDS_TOKENS,
    rows: int = BATCH_ROWS,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    keep: Callable[[dict[int, Opening]], None] = lambda _batch: None,
) -> dict[int, Opening]:
    """The openings of the unsteered model's answers to these prompts, by index.

    Prompts of similar length share a batch.

    Args:
        places: the indices of the prompts to use; None: all.
        keep: called with each batch when it is finished.

    Raises:
        StoppedError: `stop` was set; checked between tokens.
    """
    chosen = range(len(prompts)) if places is None else places
    order = sorted(chosen, key=lambda place: len(encode(model, prompts[place])))
    found: dict[int, Opening] = {}
    prefixes, already = PrefixCaches(model), len(prompts) - len(order)
    for start in range(0, len(order), rows):
        raise_if_stopped(stop)
        tell(progress, Stage.READING_FIRST_WORDS, already + start, len(prompts), "prompts")
        batch = order[start : start + rows]
        lanes = [Lane(as_messages(prompts[place])) for place in batch]
        distributions = torch.softmax(first_token_logits(model, lanes, None, prefixes=prefixes, stop=stop), dim=-1)
        likely = distributions.topk(min(KEPT_TOKENS, distributions.shape[1]))
        first: dict[int, int] = {}
        pieces: dict[int, list[str]] = defaultdict(list)
        for step in generate(model, lanes, None, max_new_tokens=tokens, prefixes=prefixes, stop=stop):
            first.setdefault(step.lane, step.token_id)
            pieces[step.lane].append(step.text)
        read = {
            place: Opening(
                first[lane], tuple(pieces[lane]), likely.indices[lane].numpy(), likely.values[lane].double().numpy()
            )
            for lane, place in enumerate(batch)
        }
        keep(read)
        found |= read
    tell(progress, Stage.READING_FIRST_WORDS, len(prompts), len(prompts), "prompts")
    return found


def _write(found: dict[int, Opening], path: Path) -> None:
    places = sorted(found)
    openings = [found[place] for place in places]
    with path.open("wb") as file:
        np.savez(
            file,
            places=np.array(places),
            tokens=np.array([opening.token for opening in openings]),
            pieces=np.array(json.dumps([opening.pieces for opening in openings])),
            likely=np.stack([opening.likely for opening in openings]),
            probabilities=np.stack([opening.probabilities for opening in openings]),
        )


def _read(path: Path) -> dict[int, Opening]:
    """The openings in a file, by index."""
    with zipfile.ZipFile(path) as parts:  # numpy reads a part's header before its checksum
        if damaged := parts.testzip():
            raise ValueError(f"{damaged} is damaged")
    with np.load(path, allow_pickle=False) as file:
        places, tokens = file["places"].tolist(), file["tokens"].tolist()
        pieces, likely, probabilities = json.loads(str(file["pieces"])), file["likely"], file["probabilities"]
    rows = zip(places, tokens, pieces, likely, probabilities, strict=True)
    return {place: Opening(token, tuple(text), ids, values) for place, token, text, ids, values in rows}


_CACHE = ResultCache("first-words", ".npz", _read, _write)

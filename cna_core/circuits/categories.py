"""How many neurons the circuits of prompt categories share, compared with the circuits of two halves of one category.

Circuits from different prompts never share all neurons, even if the prompts are of one kind. So every circuit is
selected from equally many positive prompts of its category, and each category is also compared with another half of
itself. If two categories share as much as two halves of one, their circuits cannot be told apart. This module uses
stored activations and knows no model.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit, CircuitSettings
from cna_core.errors import CircuitError
from cna_core.progress import Report, Stage, raise_if_stopped, tell

FEWEST = 4
"""Prompts in a half; categories with fewer than two halves are left out."""


@dataclass(frozen=True)
class CategoryOverlaps:
    """How much circuits of categories share.

    Args:
        names: the categories, in the order of their first prompt.
        prompts: positive prompts that each circuit was selected from.
        jaccard: (categories, categories) float64, symmetric, means over draws; on the diagonal, two halves of one.
        left_out: categories with too few prompts.
    """

    names: tuple[str, ...]
    prompts: int
    jaccard: NDArray[np.float64]
    left_out: tuple[str, ...] = ()


def category_overlaps(
    activations: Activations,
    category_of: Mapping[str, str],
    settings: CircuitSettings | None = None,
    *,
    draws: int = 3,
    seed: int = 0,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> CategoryOverlaps:
    """Select circuits from random halves of each category, all against the same negative prompts.

    Args:
        category_of: positive prompt → its category.
        settings: how circuits are selected by δ; None: the usual settings.
        draws: how often the halves are drawn.

    Raises:
        CircuitError: fewer than two categories have enough prompts.
        StoppedError: `stop` was set.
    """
    settings = settings or CircuitSettings()
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(activations.positive):
        if name := category_of.get(prompt, ""):
            places.setdefault(name, []).append(place)
    names = tuple(name for name, mine in places.items() if len(mine) >= 2 * FEWEST)
    if len(names) < 2:
        raise CircuitError(f"At least two categories need {2 * FEWEST} positive prompts each.")
    size = min(len(places[name]) for name in names) // 2
    random, total = np.random.default_rng(seed), np.zeros((len(names), len(names)))
    for draw in range(draws):
        halves: list[tuple[Circuit, Circuit]] = []
        for number, name in enumerate(names):
            raise_if_stopped(stop)
            tell(progress, Stage.CHECKING_RANDOM_HALVES, draw * len(names) + number, draws * len(names), "categories")
            chosen = random.permutation(places[name])
            first, second = (_circuit(activations, part, settings) for part in (chosen[:size], chosen[size : 2 * size]))
            halves.append((first, second))
        for row, (first, _) in enumerate(halves):
            for column, (_, second) in enumerate(halves):
                total[row, column] += first.overlap(second)
    tell(progress, Stage.CHECKING_RANDOM_HALVES, draws * len(names), draws * len(names), "categories")
    jaccard = (total + total.T) / (2 * draws)
    return CategoryOverlaps(names, size, jaccard, tuple(name for name in places if name not in names))


def _circuit(activations: Activations, places: NDArray[np.int64], settings: CircuitSettings) -> Circuit:
    """The circuit from these positive prompts and all negative ones."""
    others = np.setdiff1d(np.arange(len(activations.positive)), places)
    return attribute(
        activations.without(others.tolist()),
        fraction=settings.fraction or 0.001,
        score=settings.score,
        skip_layers=settings.skip_layers,
        universal_threshold=settings.universal_threshold,
        universal_fraction=settings.universal_fraction,
    )

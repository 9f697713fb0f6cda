"""How refusal falls with the number of ablated neurons: one curve per ranking, and the size that halves refusal.

Data and statistics; how_few.py measures them. This module knows no model.
"""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cna_core.errors import RunError
from cna_core.evaluation.intervals import Estimate, mean_with_interval, resampled_counts
from cna_core.models.layout import ModelIdentity
from cna_core.outside import first_problem
from cna_core.paths import written_beside

FORMAT = "cna-how-few/1"

Values = tuple[tuple[tuple[float, ...], ...], ...]


class Halving(BaseModel):
    """The number of ablated neurons at which the mean refusal chance is half of the unsteered model's.

    Attributes:
        value, low, high: the number and its 95 % interval over prompts; None: more than the largest size.
    """

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None


class SizeCurve(BaseModel):
    """The results of one ranking of neurons at growing sizes; each size includes the smaller ones.

    Attributes:
        key: the stable name; "random" and "random-writing" are controls with several draws.
        title: the name of the ranking.
        sizes: the numbers of ablated neurons, ascending.
        chances: (draws, harmful prompts, sizes): the refusal chance; one draw unless the ranking is random.
        divergences: (draws, benign prompts, sizes): KL of the first token from the unsteered model's, in nats.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    sizes: tuple[int, ...]
    chances: Values
    divergences: Values

    @property
    def is_control(self) -> bool:
        return self.key.startswith("random")

    @cached_property
    def by_prompt(self) -> NDArray[np.float64]:
        """(prompts, sizes) float64: the mean refusal chance over draws."""
        return np.array(self.chances, dtype=np.float64).mean(0)

    @property
    def divergence(self) -> NDArray[np.float64]:
        """(sizes,) float64: the mean KL on benign prompts, in nats; NaN without benign prompts."""
        values = np.array(self.divergences, dtype=np.float64)
        return values.mean((0, 1)) if values.size else np.full(len(self.sizes), np.nan)

    @property
    def band(self) -> NDArray[np.float64]:
        """(sizes, 3) float64: the mean refusal chance with its 95 % interval over prompts.

        Controls have the lowest and the highest draw instead of the interval.
        """
        if self.is_control:
            draws = np.array(self.chances, dtype=np.float64).mean(1)
            return np.stack([draws.mean(0), draws.min(0), draws.max(0)], -1)
        return np.array([mean_with_interval(column) for column in self.by_prompt.T])


class HowFewSettings(BaseModel):
    """How much to measure; the descriptions are also the help texts."""

    model_config = ConfigDict(frozen=True)

    prompts: int = Field(default=64, ge=2, description="most harmful prompts, evenly spread over the set")
    benign: int = Field(default=24, ge=1, description="most benign prompts for the KL divergence")
    largest: int = Field(
        default=1024, ge=1, description="most neurons to ablate; the sizes are powers of 2 up to this number"
    )
    draws: int = Field(default=3, ge=1, description="random circuits of each kind")
    seed: int = 0


class HowFew(BaseModel):
    """The result of `how_few`.

    Attributes:
        harmful_name, benign_name: the names of the sets.
        refused: the number of discovery prompts that the model refuses, on which effects were measured.
        baseline: (harmful prompts,): the unsteered model's refusal chance.
        curves: one per ranking of neurons.
        notes: sentences on what could not be measured.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["cna-how-few/1"] = "cna-how-few/1"
    model: ModelIdentity
    settings: HowFewSettings
    harmful_name: str
    benign_name: str
    refused: int
    baseline: tuple[float, ...]
    curves: tuple[SizeCurve, ...]
    notes: tuple[str, ...] = ()

    @property
    def baseline_estimate(self) -> Estimate:
        """The mean refusal chance without ablation, with its interval over prompts."""
        return mean_with_interval(self.baseline)

    def curve(self, key: str) -> SizeCurve | None:
        """The curve with this key, or None."""
        return next((curve for curve in self.curves if curve.key == key), None)

    def halving(self, curve: SizeCurve) -> Halving:
        """The number of neurons at which this curve halves refusal, with its interval from resampled prompts."""
        return halving(np.array(self.baseline), curve.by_prompt, curve.sizes)

    def summary(self) -> list[dict[str, object]]:
        """One row per curve: its title, the number that halves refusal, and the chance and the KL at each size."""
        rows: list[dict[str, object]] = []
        for curve in self.curves:
            found = self.halving(curve)
            rows.append(
                {
                    "key": curve.key,
                    "title": curve.title,
                    "halves_refusal_at": found.value,
                    "halves_low": found.low,
                    "halves_high": found.high,
                    "sizes": list(curve.sizes),
                    "refusal_chance": [round(float(value), 4) for value in curve.band[:, 0]],
                    "benign_kl": [round(float(value), 4) for value in curve.divergence],
                }
            )
        return rows

    def to_json(self) -> str:
        """The text of its file, with a final line break: all numbers, and a summary for readers."""
        content = {"summary": self.summary(), **self.model_dump(mode="json")}
        return json.dumps(content, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write a file of format cna-how-few/1."""
        path = Path(path)
        with written_beside(path) as draft:
            draft.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The file") -> "HowFew":
        """Parse the output of `to_json`.

        Raises:
            RunError: it is another format, or damaged.
        """
        try:
            content = json.loads(text)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise RunError(f"{name} is not a file of format {FORMAT}; choose a file of the command how-few.")
            return cls.model_validate(content)
        except ValidationError as error:
            raise RunError(f"{name} is damaged: {first_problem(error)}; measure it again.") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{name} is damaged or not JSON; choose a file of the command how-few.") from error

    @classmethod
    def load(cls, path: str | Path) -> "HowFew":
        """Read a file; errors as in `from_json`."""
        path = Path(path)
        try:
            return cls.from_json(path.read_bytes(), path.name)
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror or error}); choose another file.") from error


def halving(
    baseline: NDArray[np.float64], chances: NDArray[np.float64], sizes: tuple[int, ...], seed: int = 0
) -> Halving:
    """The smallest number of neurons at which the mean chance is half of the baseline's.

    Between two sizes, the mean chance is interpolated linearly over the logarithm of the size. The interval is the
    percentile bootstrap interval over prompts.

    Args:
        baseline: (prompts,).
        chances: (prompts, sizes).
        sizes: ascending.
    """
    weights = np.vstack([np.ones(len(baseline)), resampled_counts(len(baseline), seed)]) / len(baseline)
    found = crossings(weights @ baseline / 2, weights @ chances, sizes)
    low, high = np.quantile(found[1:], [0.025, 0.975], method="inverted_cdf")
    value, low, high = (None if np.isinf(number) else float(number) for number in (found[0], low, high))
    return Halving(value=value, low=low, high=high)


def crossings(target: NDArray[np.float64], chances: NDArray[np.float64], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """(rows,) float64: the size at which each row of chances (rows, sizes) first falls to its target (rows,).

    It is infinite if a row never does, and the smallest size if the row starts below its target.
    """
    steps = np.log(np.array(sizes, dtype=np.float64))
    reached = chances <= target[:, None]
    place = reached.argmax(1)
    rows = np.arange(len(chances))
    before = np.maximum(place - 1, 0)
    above, below = chances[rows, before], chances[rows, place]
    fall = np.where(above > below, above - below, 1.0)
    part = np.where(place > 0, (above - target) / fall, 1.0)
    sizes_found = np.exp(steps[before] + part * (steps[place] - steps[before]))
    return np.where(reached.any(1), sizes_found, np.inf)


def halving_in_words(found: Halving) -> str:
    """The number of neurons that halves refusal, with its interval: "7 (5–12)", or "more than measured"."""
    if found.value is None:
        return "not halved"
    low, high = ("…" if end is None else _count(end) for end in (found.low, found.high))
    return f"{_count(found.value)} ({low}–{high})"


def _count(neurons: float) -> str:
    return f"{max(1, math.ceil(neurons - 1e-9)):,}"

"""Finds the setting with which Chat opens: the gentlest that at least halves the chance of a refusal.

The search takes seconds: the gate meter computes chances from the first token, on discovery prompts that the model
refuses, so nothing is generated. Settings that halve the mean chance are ranked by KL(baseline ‖ setting) of the first
token on benign discovery prompts; the lowest is the gentlest. It also chooses example prompts that the model refuses.
`working_point.py` is the slower search that generates answers and counts refusals. Knows nothing about pages.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.cached import ResultCache
from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.dials import PREFIX_BYTES
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.sets import ContrastSet, PromptSet

FORMAT = "cna-first-setting/1"
STRENGTHS = (0.5, 1.0, 1.5, 2.0)
HALVED = 0.5
LIKELY = 0.5
"""A prompt counts as refused if its chance of a refusal is at least this."""
ASKED, REFUSED, BENIGN = 32, 10, 8
"""Positive prompts that are asked, how many refused ones of them the search uses, and how many benign prompts."""
EXAMPLES_ASKED, EXAMPLES = 16, 2


@dataclass(frozen=True)
class FirstSetting:
    """The result of the search.

    Attributes:
        fraction, strength: the gentlest setting that halves the chance; both None if no setting does.
        chance, baseline_chance: mean chance of a refusal at that setting, and without steering.
        benign_kl: nats; what the setting changes on benign prompts.
        prompts: how many discovery prompts the chances are means of: those that the model refuses, at most `REFUSED`.
        tried: how many settings were tried.
        refused: held-out harmful prompts that the model refuses, those first whose chance falls most.
        over_refused: prompts that only look unsafe and that the model refuses, likeliest first.
    """

    fraction: float | None = None
    strength: float | None = None
    chance: float = float("nan")
    baseline_chance: float = float("nan")
    benign_kl: float = float("nan")
    prompts: int = 0
    tried: int = 0
    refused: tuple[str, ...] = ()
    over_refused: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether a setting halves the chance."""
        return self.fraction is not None


def search_first_setting(
    model: LoadedModel,
    circuits: Mapping[float, Circuit],
    openings: RefusalOpenings,
    contrast: ContrastSet | None = None,
    strengths: Sequence[float] = STRENGTHS,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> FirstSetting:
    """Search sizes × strengths; the result is kept on disk.

    Args:
        circuits: by their share of all neurons.
        openings: the model's, from `calibrate_openings`.
        contrast: the discovery prompts; None: the built-in ones.

    Raises:
        CircuitError: a circuit belongs to another model.
        StoppedError: `stop` was set; checked between circuit sizes.

    Example:
        sizes = circuits_by_fraction(activations, (0.001, 0.004))
        setting = search_first_setting(model, sizes, calibrate_openings(model))
    """
    contrast = contrast or ContrastSet.builtin()
    depends_on = _depends_on(circuits, openings, contrast, strengths)
    known = _CACHE.find(*depends_on)
    if known is not None:
        return known
    search = _Search(model, openings, progress, stop, 3 + len(circuits))
    return _CACHE.keep(search.result(circuits, contrast, strengths), *depends_on)


def known_first_setting(
    circuits: Mapping[float, Circuit],
    openings: RefusalOpenings,
    contrast: ContrastSet | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> FirstSetting | None:
    """What `search_first_setting` kept for the same arguments, or None; needs no model."""
    return _CACHE.find(*_depends_on(circuits, openings, contrast or ContrastSet.builtin(), strengths))


class _Search:
    """One search: asks the model for chances and divergences, and tells how far it is."""

    def __init__(
        self,
        model: LoadedModel,
        openings: RefusalOpenings,
        progress: Report | None,
        stop: threading.Event | None,
        steps: int,
    ) -> None:
        self.model, self.openings, self.progress, self.stop, self.steps = model, openings, progress, stop, steps
        self.done = 0
        self.prefixes = PrefixCaches(model, PREFIX_BYTES)

    def result(
        self, circuits: Mapping[float, Circuit], contrast: ContrastSet, strengths: Sequence[float]
    ) -> FirstSetting:
        asked = contrast.positive.spread(min(ASKED, len(contrast.positive))).prompts
        before = self._chances([Lane(prompt) for prompt in asked])
        likely = np.flatnonzero(before >= LIKELY)
        likely = likely[np.linspace(0, len(likely) - 1, min(REFUSED, len(likely))).round().astype(int)]
        if not len(likely):
            return FirstSetting(tried=0)
        prompts, baseline = [asked[place] for place in likely], float(before[likely].mean())
        halving: dict[tuple[float, float], float] = {}
        for fraction, circuit in sorted(circuits.items()):
            lanes = [Lane(prompt, strength, circuit=circuit) for strength in strengths for prompt in prompts]
            means = self._chances(lanes).reshape(len(strengths), len(prompts)).mean(1)
            halving |= {
                (fraction, strength): float(mean)
                for strength, mean in zip(strengths, means, strict=True)
                if mean <= HALVED * baseline
            }
        tried = len(circuits) * len(strengths)
        costs = self._divergences(list(halving), circuits, contrast)
        best = min(costs, key=lambda setting: (costs[setting], *setting), default=None)
        refused, over_refused = self._examples(best, circuits)
        if best is None:
            return FirstSetting(
                baseline_chance=baseline, prompts=len(prompts), tried=tried, refused=refused, over_refused=over_refused
            )
        return FirstSetting(*best, halving[best], baseline, costs[best], len(prompts), tried, refused, over_refused)

    def _divergences(
        self, settings: Sequence[tuple[float, float]], circuits: Mapping[float, Circuit], contrast: ContrastSet
    ) -> dict[tuple[float, float], float]:
        """Mean KL(baseline ‖ setting) of the first token on benign prompts, in nats."""
        if not settings:
            return {}
        benign = contrast.negative.spread(min(BENIGN, len(contrast.negative))).prompts
        lanes = [Lane(prompt) for prompt in benign]
        for fraction, strength in settings:
            lanes += [Lane(prompt, strength, circuit=circuits[fraction]) for prompt in benign]
        logs = torch.log_softmax(self._logits(lanes).double(), dim=-1).reshape(1 + len(settings), len(benign), -1)
        before = logs[0]
        found = {}
        for setting, after in zip(settings, logs[1:], strict=True):
            found[setting] = float((before.exp() * (before - after)).sum(-1).clamp(min=0).mean())
        return found

    def _examples(
        self, setting: tuple[float, float] | None, circuits: Mapping[float, Circuit]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Held-out prompts that the model refuses, harmful ones and ones that only look unsafe."""
        harmful, borderline = (
            PromptSet.builtin(name).spread(EXAMPLES_ASKED).prompts for name in ("evaluation-harmful", "borderline")
        )
        lanes = [Lane(prompt) for prompt in (*harmful, *borderline)]
        if setting is not None:
            lanes += [Lane(prompt, setting[1], circuit=circuits[setting[0]]) for prompt in harmful]
        chances = self._chances(lanes)
        before, looks, after = np.split(chances, [EXAMPLES_ASKED, 2 * EXAMPLES_ASKED])
        falls = before - after if setting is not None else before
        return _best(harmful, falls, before >= LIKELY), _best(borderline, looks, looks >= LIKELY)

    def _chances(self, lanes: Sequence[Lane]) -> NDArray[np.float64]:
        return self.openings.chance(self._logits(lanes))

    def _logits(self, lanes: Sequence[Lane]) -> torch.Tensor:
        raise_if_stopped(self.stop)
        tell(self.progress, Stage.FIRST_SETTING, self.done, self.steps)
        logits = first_token_logits(self.model, lanes, None, prefixes=self.prefixes, stop=self.stop)
        self.done += 1
        tell(self.progress, Stage.FIRST_SETTING, self.done, self.steps)
        return logits


def _best(prompts: Sequence[str], values: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[str, ...]:
    places = [int(place) for place in np.argsort(-values, kind="stable") if allowed[place]]
    return tuple(prompts[place] for place in places[:EXAMPLES])


def _depends_on(
    circuits: Mapping[float, Circuit], openings: RefusalOpenings, contrast: ContrastSet, strengths: Sequence[float]
) -> list[object]:
    sizes = [[fraction, circuit.sha256] for fraction, circuit in sorted(circuits.items())]
    # The openings name the model, and change with the detector.
    return [FORMAT, openings.sha256, contrast.sha256, sizes, list(strengths)]


def _read(path: Path) -> FirstSetting:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content |= {name: tuple(content[name]) for name in ("refused", "over_refused")}
    return FirstSetting(**content)


def _write(setting: FirstSetting, path: Path) -> None:
    path.write_text(json.dumps(asdict(setting)), encoding="utf-8")


_CACHE = ResultCache("first-settings", ".json", _read, _write)

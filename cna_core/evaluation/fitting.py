"""Fits methods to a model, with discovery prompts only: records the data they need and tests their candidates.

This module knows where the data come from and how a candidate is tested (gate meter, KL). It does not know how a method
uses them.
"""

import functools
import json
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cna_core.cached import ResultCache
from cna_core.circuits.activations import Activations
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.decoding import lanes as decoding
from cna_core.decoding.lanes import Lane, Step, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.interventions.intervention import Intervention, Material, TrialResult
from cna_core.interventions.registry import method
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import as_messages
from cna_core.prompts.sets import ContrastSet, PromptSet

FORMAT = "cna-trial/1"
TRIAL_PROMPTS = 24
"""The number of positive, and of negative, discovery prompts on which candidates are tested."""


def fit(
    model: LoadedModel,
    key: str,
    circuit: Circuit | None = None,
    contrast: ContrastSet | None = None,
    *,
    activations: Activations | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Intervention:
    """Fit a method to a model. The data it needs are recorded now or read from the cache folder.

    The caller has exclusive use of the model meanwhile (models/host.py).

    Args:
        key: the method's key (`cna_core.interventions.registry.methods`).
        circuit: for methods on a circuit's neurons.
        contrast: the discovery prompts; None: those of the activations, else the built-in ones.
        activations: the activations of the discovery prompts, if they were recorded already.

    Raises:
        CnaError: there is no such method.
        CircuitError: the method needs a circuit, or the circuit belongs to another model.
        StoppedError: `stop` was set.

    Example:
        direction = cna.fit(model, "direction")
        lanes = [cna.Lane(message), cna.Lane(message, strength=1.0, method=direction)]
    """
    wanted = method(key)
    return wanted.fit(material(model, circuit, contrast, activations, progress=progress, stop=stop))


def material(
    model: LoadedModel,
    circuit: Circuit | None = None,
    contrast: ContrastSet | None = None,
    activations: Activations | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Material:
    """The data that methods are fitted with, recorded when a method first uses them; arguments as for `fit`."""
    contrast = contrast or (contrast_of(activations) if activations is not None else ContrastSet.builtin())

    @functools.cache
    def record() -> Activations:
        if activations is not None and activations.recorded_residual is not None:
            return activations
        return capture(model, contrast, progress=progress, stop=stop)

    def trial(candidates: Sequence[Intervention]) -> TrialResult:
        return try_on_discovery_prompts(model, candidates, contrast, progress=progress, stop=stop)

    return Material(model, circuit, record, trial, stop)


def contrast_of(activations: Activations) -> ContrastSet:
    """The prompts with which the activations were recorded."""
    return ContrastSet(PromptSet("positive", activations.positive), PromptSet("negative", activations.negative))


def generate(
    model: LoadedModel,
    lanes: Sequence[Lane],
    circuit: Circuit | None = None,
    *,
    contrast: ContrastSet | None = None,
    **options: Any,
) -> Generator[Step, None, None]:
    """Like `cna_core.decoding.lanes.generate`, but lanes may name any method by its key: it is fitted first.

    Args:
        contrast: the discovery prompts for fitting; None: the built-in ones.
        options: the options of `generate`.
    """
    fitted: dict[tuple[str, int], Intervention] = {}
    ready = []
    for lane in lanes:
        if isinstance(lane.method, str) and lane.is_steered:
            mine = lane.circuit or circuit
            place = lane.method, id(mine)
            if place not in fitted:
                fitted[place] = fit(model, lane.method, mine, contrast, stop=options.get("stop"))
            lane = replace(lane, method=fitted[place])
        ready.append(lane)
    return decoding.generate(model, ready, circuit, **options)


def try_on_discovery_prompts(
    model: LoadedModel,
    candidates: Sequence[Intervention],
    contrast: ContrastSet,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> TrialResult:
    """Test candidates at strength 1: the gate meter on positive prompts, KL divergence on negative ones.

    The result is stored on disk for the model, the prompts and the candidates.

    Raises:
        StoppedError: `stop` was set.
    """
    openings = calibrate_openings(model, contrast, progress=progress, stop=stop)
    changes = [candidate.change(1.0).key.hex() for candidate in candidates]
    depends_on = FORMAT, model.identity.model_dump(mode="json"), openings.sha256, contrast.sha256, changes
    found = _TRIALS.find(*depends_on)
    if found is None:
        positive, negative = (_some(side.prompts) for side in (contrast.positive, contrast.negative))
        baseline = torch.log_softmax(_first_tokens(model, negative, None, stop).double(), dim=-1)
        chances, divergences = [], []
        for done, candidate in enumerate(candidates):
            raise_if_stopped(stop)
            tell(progress, Stage.FITTING_METHOD, done, len(candidates), "candidates", subject=candidate.label)
            chances.append(float(openings.chance(_first_tokens(model, positive, candidate, stop)).mean()))
            after = torch.log_softmax(_first_tokens(model, negative, candidate, stop).double(), dim=-1)
            divergences.append(float((baseline.exp() * (baseline - after)).sum(-1).clamp(min=0).mean()))
        tell(
            progress, Stage.FITTING_METHOD, len(candidates), len(candidates), "candidates", subject=candidates[-1].label
        )
        found = _TRIALS.keep(TrialResult(np.array(chances), np.array(divergences)), *depends_on)
    return found


def _first_tokens(
    model: LoadedModel, prompts: Sequence[str], candidate: Intervention | None, stop: threading.Event | None
) -> torch.Tensor:
    lanes = [
        Lane(as_messages(prompt)) if candidate is None else Lane(as_messages(prompt), 1.0, candidate)
        for prompt in prompts
    ]
    return first_token_logits(model, lanes, None, prefixes=PrefixCaches(model), stop=stop)


def _some(prompts: Sequence[str]) -> list[str]:
    count = min(TRIAL_PROMPTS, len(prompts))
    return [prompts[place * len(prompts) // count] for place in range(count)]


def _read_trial(path: Path) -> TrialResult:
    chances, divergences = (np.array(part, dtype=np.float64) for part in json.loads(path.read_text(encoding="utf-8")))
    return TrialResult(chances, divergences)


def _write_trial(result: TrialResult, path: Path) -> None:
    path.write_text(
        json.dumps([part.tolist() for part in (result.refusal_chance, result.divergence)]), encoding="utf-8"
    )


_TRIALS = ResultCache("trials", ".json", _read_trial, _write_trial)

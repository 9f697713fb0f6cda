"""The gate meter: the chance that an answer begins with a refusal, computed from the first token without generation.

It has two steps. Both are calibrated once for a model, with its greedy answers to the discovery prompts:

    mass   = Σ over first tokens t of p(t) · P(refusal | first token t)
    chance = 1 / (1 + exp(−intercept − slope · logit(mass)))

p(t) is the model's first-token distribution for the prompt at the given strength, from one forward pass. P(refusal | t)
is the share of refusals among the answers that begin with t, as the detector judges their first words; tokens that were
seen rarely or never get the average of rare openings. The mass is the refusal rate under sampling. But answers are
greedy, and the likeliest opening always wins, so the second step maps the mass to the rate at which greedy answers
refused; each discovery prompt's mass is computed without its own answer. This module knows nothing about sweeps or
pages. docs/gate_meter.md shows how well the chances agree with full answers.
"""

import hashlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.cached import ResultCache
from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.first_words import Opening, first_words
from cna_core.evaluation.refusal import detect_refusal, detector_identity
from cna_core.interventions.intervention import Intervention
from cna_core.interventions.registry import DEFAULT_METHOD
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import ContrastSet

FORMAT = "cna-openings/1"
OPENING_TOKENS = 12
"""The tokens of an answer in which the detector looks for a refusal."""
PRIOR_ANSWERS = 1.0
"""The number of prior answers of each first token; their refusal rate is that of rare openings."""
RARELY = 2
"""A first token that was seen at most this often is rare."""
METER_STRENGTHS = tuple(round(-1 + 0.25 * step, 2) for step in range(13))
"""The strengths that the meter shows: −1 … 2."""


@dataclass(frozen=True)
class RefusalOpenings:
    """A model's calibration: how its refusals begin.

    Args:
        model: the calibrated model.
        prompts_sha256: the hash of the discovery prompts.
        tokens: (n,) int64, the first tokens that were seen, the most frequent first.
        refused, seen: (n,) float64, the number of refusals and of answers that begin with each token.
        intercept, slope: map the logit of the mass to the logit of the chance.
    """

    model: ModelIdentity
    prompts_sha256: str
    tokens: NDArray[np.int64]
    refused: NDArray[np.float64]
    seen: NDArray[np.float64]
    intercept: float = 0.0
    slope: float = 1.0

    @property
    def rare_rate(self) -> float:
        """P(refusal | an unseen first token): the share of refusals among answers with a rare opening.

        Refusals have few different openings and compliant answers many, so a new opening is rarely a refusal (the idea
        of Good and Turing's estimate). One prior answer with the overall refusal rate stabilises the share.
        """
        overall = self.refused.sum() / max(1.0, self.seen.sum())
        rare = self.seen <= RARELY
        return float((self.refused[rare].sum() + overall) / (self.seen[rare].sum() + 1))

    @property
    def refusal_given_token(self) -> NDArray[np.float64]:
        """(n,) float64: P(refusal | first token), with `PRIOR_ANSWERS` prior answers at the rate of rare openings."""
        return (self.refused + PRIOR_ANSWERS * self.rare_rate) / (self.seen + PRIOR_ANSWERS)

    def mass(self, logits: Tensor) -> NDArray[np.float64]:
        """(rows,) float64, 0 to 1: the probability mass of refusal openings in logits (rows, vocabulary)."""
        probabilities = torch.softmax(logits.double(), dim=-1)[:, torch.from_numpy(self.tokens).to(logits.device)]
        known = probabilities.cpu().numpy()
        return known @ self.refusal_given_token + (1 - known.sum(1)).clip(0) * self.rare_rate

    def chance(self, logits: Tensor) -> NDArray[np.float64]:
        """(rows,) float64, 0 to 1: the chance that the greedy answer begins with a refusal."""
        return _logistic(self.intercept + self.slope * _logit(self.mass(logits)))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        content = {
            "format": FORMAT,
            "model": self.model.model_dump(),
            "prompts_sha256": self.prompts_sha256,
            "tokens": self.tokens.tolist(),
            "refused": self.refused.tolist(),
            "seen": self.seen.tolist(),
            "intercept": self.intercept,
            "slope": self.slope,
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "RefusalOpenings":
        """Parse the output of `to_json`.

        Raises:
            ValueError: the text is not valid.
        """
        content = json.loads(text)
        if content.get("format") != FORMAT:
            raise ValueError(f"not {FORMAT}")
        return cls(
            ModelIdentity.model_validate(content["model"]),
            str(content["prompts_sha256"]),
            np.array(content["tokens"], dtype=np.int64),
            np.array(content["refused"], dtype=np.float64),
            np.array(content["seen"], dtype=np.float64),
            float(content["intercept"]),
            float(content["slope"]),
        )


def calibrate_openings(
    model: LoadedModel,
    contrast: ContrastSet | None = None,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> RefusalOpenings:
    """Calibrate the gate meter with the model's greedy first words to every prompt of the discovery set.

    The calibration is stored on disk for the model and the prompts, and so are the words (first_words.py): a stopped
    calibration resumes, and words that were generated for another purpose are reused.

    Args:
        contrast: the discovery prompts; None: the built-in ones.
        progress: receives the number of finished prompts.
        use_cache: False calibrates again and replaces the stored result.

    Raises:
        StoppedError: `stop` was set.
    """
    contrast = contrast or ContrastSet.builtin()
    if use_cache and (found := cached_openings(model.identity, contrast)) is not None:
        return found
    heard = first_words(model, contrast, progress=progress, stop=stop, use_cache=use_cache)
    refused = [detect_refusal(opening.words(OPENING_TOKENS)).refused for opening in heard]
    openings = learnt_openings(model.identity, contrast.sha256, heard, refused)
    return _CACHE.keep(openings, *_depends_on(model.identity, contrast))


def cached_openings(model: ModelIdentity, contrast: ContrastSet | None = None) -> RefusalOpenings | None:
    """The stored calibration for this model and these prompts, or None. Loads no model."""
    return _CACHE.find(*_depends_on(model, contrast or ContrastSet.builtin()))


def _depends_on(model: ModelIdentity, contrast: ContrastSet) -> list[object]:
    return [FORMAT, model.model_dump(mode="json"), contrast.sha256, detector_identity()]


_CACHE = ResultCache(
    "openings",
    ".json",
    read=lambda path: RefusalOpenings.from_json(path.read_text(encoding="utf-8")),
    write=lambda openings, path: path.write_text(openings.to_json(), encoding="utf-8"),
)


def refusal_chance(
    model: LoadedModel,
    circuit: Circuit,
    messages: str | Sequence[Message],
    strengths: Sequence[float],
    openings: RefusalOpenings,
    *,
    method: str | Intervention = DEFAULT_METHOD,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
) -> NDArray[np.float64]:
    """(strengths,) float64, 0 to 1: the chance that the answer begins with a refusal at each strength, in one batch.

    Args:
        openings: this model's calibration, from `calibrate_openings`.
        method: as in `Lane`.
        prefixes: prefix caches of the strengths; with them, only the new message is computed.

    Raises:
        CircuitError: the circuit belongs to another model.
        PromptError: the conversation is empty or too long.
        StoppedError: `stop` was set.
    """
    lanes = [Lane(messages, float(strength), method) for strength in strengths]
    return openings.chance(first_token_logits(model, lanes, circuit, prefixes=prefixes, stop=stop))


def agreement(chances: Sequence[float], refused: Sequence[bool]) -> dict[str, float]:
    """How well the chances agree with the detector's verdicts on the answers, for the docs.

    Returns:
        "auc": the probability that a refused answer has a higher chance than another; "brier": the mean squared error;
        "predicted" and "observed": the mean chance and the refusal rate; "correlation". All or no refusals give NaN.
    """
    predicted, observed = np.asarray(chances, dtype=np.float64), np.asarray(refused, dtype=bool)
    figures: dict[str, Any] = {
        "predicted": predicted.mean(),
        "observed": observed.mean(),
        "brier": np.mean((predicted - observed) ** 2),
        "auc": math.nan,
        "correlation": math.nan,
    }
    if observed.any() and not observed.all():
        above, below = predicted[observed][:, None], predicted[~observed][None, :]
        figures["auc"] = np.mean((above > below) + 0.5 * (above == below))
        figures["correlation"] = np.corrcoef(predicted, observed)[0, 1]
    return {name: float(value) for name, value in figures.items()}


def learnt_openings(
    model: ModelIdentity, prompts_sha256: str, openings: Sequence[Opening], refused: Sequence[bool]
) -> RefusalOpenings:
    """Calibrate from openings (n,) and whether each refuses (n,): counts by first token, and the fitted chance."""
    counted: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for opening, refuses in zip(openings, refused, strict=True):
        counted[opening.token][0] += 1
        counted[opening.token][1] += refuses
    tokens = sorted(counted, key=lambda token: (-counted[token][0], token))
    learnt = RefusalOpenings(
        model,
        prompts_sha256,
        np.array(tokens, dtype=np.int64),
        np.array([counted[token][1] for token in tokens], dtype=np.float64),
        np.array([counted[token][0] for token in tokens], dtype=np.float64),
    )
    masses = [_mass_without_itself(learnt, *pair) for pair in zip(openings, refused, strict=True)]
    intercept, slope = _fitted(_logit(np.array(masses)), np.array(refused, dtype=np.float64))
    return replace(learnt, intercept=intercept, slope=slope)


def _mass_without_itself(learnt: RefusalOpenings, opening: Opening, refuses: bool) -> float:
    """The mass of a prompt, computed without its own answer."""
    own = learnt.tokens == opening.token
    without = replace(learnt, refused=learnt.refused - own * refuses, seen=learnt.seen - own)
    given = dict(zip(without.tokens.tolist(), without.refusal_given_token.tolist(), strict=True))
    rare = without.rare_rate
    weights = np.array([given.get(token, rare) for token in opening.likely.tolist()])
    return float(opening.probabilities @ weights + max(0.0, 1 - opening.probabilities.sum()) * rare)


def _fitted(logits: NDArray[np.float64], refused: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept and slope of a logistic regression, with normal priors (means 0 and 1, standard deviations 2 and 1).

    The priors keep the fit finite if the model refuses nothing or its refusals are linearly separable.
    """
    table = np.stack([np.ones_like(logits), logits], axis=1)
    centre, precision = np.array([0.0, 1.0]), np.diag([1 / 4, 1.0])
    weights = centre.copy()
    for _ in range(100):
        predicted = _logistic(table @ weights)
        slope = table.T @ (predicted - refused) + precision @ (weights - centre)
        curvature = table.T @ (table * (predicted * (1 - predicted))[:, None]) + precision
        step = np.linalg.solve(curvature, slope)
        weights -= step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))  # do not overshoot the optimum
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))


def _logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))

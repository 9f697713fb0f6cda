"""The gate meter: the chance that an answer opens as a refusal, read off its first token without writing it.

    chance = Σ over first tokens t of p(t) · P(refusal | first token t)

p(t) is the model's distribution for the prompt at the strength in question: one pass. P(refusal | t) is learnt once for
a model from its own answers to the discovery prompts, harmful and benign (`calibrate_openings`): each answer's first
token counts as a refusal or not, as the detector says of the answer's first words. Tokens seen rarely or never are
judged by what rare openings are as a rule. Knows nothing about sweeps or pages; how well chances agree with whole
answers is in docs/gate_meter.md.
"""

import hashlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.layout import ModelIdentity
from cna_core.models.loaded import LoadedModel
from cna_core.paths import cache_folder, written_beside
from cna_core.progress import Progress, raise_if_stopped, silent
from cna_core.prompts.chat_format import Message, as_messages, encode
from cna_core.prompts.sets import ContrastSet
from cna_core.steering.lanes import Lane, first_token_logits, generate
from cna_core.steering.prefix_cache import PrefixCaches

FORMAT = "cna-openings/1"
OPENING_TOKENS = 12
"""How much of an answer is written to see whether it refuses."""
PRIOR_ANSWERS = 1.0
"""How many imagined answers, refused as often as those with a rare opening, each first token starts with."""
RARELY = 2
"""A first token seen at most this often is rare."""
METER_STRENGTHS = tuple(round(-1 + 0.25 * step, 2) for step in range(13))
"""The strengths that the meter shows: −1 … 2."""


@dataclass(frozen=True)
class RefusalOpenings:
    """How often a model's answers that begin with a token are refusals.

    Args:
        model: the model they were learnt on.
        prompts_sha256: of the discovery prompts.
        tokens: (n,) int64: first tokens that were seen, the most frequent first.
        refused, seen: (n,) float64: how many answers begin with each token, and how many of these refuse.
    """

    model: ModelIdentity
    prompts_sha256: str
    tokens: NDArray[np.int64]
    refused: NDArray[np.float64]
    seen: NDArray[np.float64]

    @property
    def rare_rate(self) -> float:
        """P(refusal | a first token never seen): the share of refusals among answers with a rare opening.

        Models refuse in few words and comply in many, so a new opening is rarely a refusal, however many answers refuse
        (the idea of Good and Turing's estimate). One imagined answer, refused as often as all are, steadies it.
        """
        overall = self.refused.sum() / max(1.0, self.seen.sum())
        rare = self.seen <= RARELY
        return float((self.refused[rare].sum() + overall) / (self.seen[rare].sum() + 1))

    @property
    def refusal_given_token(self) -> NDArray[np.float64]:
        """(n,) float64: P(refusal | first token), with `PRIOR_ANSWERS` imagined answers at the rare rate."""
        return (self.refused + PRIOR_ANSWERS * self.rare_rate) / (self.seen + PRIOR_ANSWERS)

    def chance(self, logits: Tensor) -> NDArray[np.float64]:
        """(rows,) float64, 0 to 1: the chance of each row of first-token logits (rows, vocabulary)."""
        probabilities = torch.softmax(logits.double(), dim=-1)[:, torch.from_numpy(self.tokens).to(logits.device)]
        known = probabilities.cpu().numpy()
        return known @ self.refusal_given_token + (1 - known.sum(1)).clip(0) * self.rare_rate

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
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "RefusalOpenings":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else.
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
        )


def calibrate_openings(
    model: LoadedModel,
    contrast: ContrastSet | None = None,
    *,
    progress: Progress = silent,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> RefusalOpenings:
    """Learn how the model's refusals open: its greedy first words to every prompt of the discovery set.

    Prompts of similar length are answered in one batch. The outcome is kept on disk for the model and the prompts.

    Args:
        contrast: the discovery prompts; None: the built-in ones.
        progress: told prompts done.
        use_cache: False learns again, and replaces what is kept.

    Raises:
        StoppedError: `stop` was set.
    """
    contrast = contrast or ContrastSet.builtin()
    key = hashlib.sha256(f"{FORMAT}\n{model.identity.model_dump_json()}\n{contrast.sha256}".encode()).hexdigest()
    path = cache_folder("openings") / f"{key[:32]}.json"
    if use_cache and path.exists():
        try:
            return RefusalOpenings.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, KeyError, AttributeError):
            path.unlink()  # damaged: learnt again below
    openings = _learnt(model, contrast, progress, stop)
    with written_beside(path) as draft:
        draft.write_text(openings.to_json(), encoding="utf-8")
    return openings


def cached_openings(model: ModelIdentity, contrast: ContrastSet | None = None) -> RefusalOpenings | None:
    """What `calibrate_openings` kept for this model and these prompts, or None; loads no model."""
    contrast = contrast or ContrastSet.builtin()
    key = hashlib.sha256(f"{FORMAT}\n{model.model_dump_json()}\n{contrast.sha256}".encode()).hexdigest()
    path = cache_folder("openings") / f"{key[:32]}.json"
    try:
        return RefusalOpenings.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def refusal_chance(
    model: LoadedModel,
    circuit: Circuit,
    messages: str | Sequence[Message],
    strengths: Sequence[float],
    openings: RefusalOpenings,
    *,
    prefixes: PrefixCaches | None = None,
    stop: threading.Event | None = None,
) -> NDArray[np.float64]:
    """(strengths,) float64, 0 to 1: the chance that the answer opens as a refusal at each strength, from one batch.

    Args:
        openings: what `calibrate_openings` learnt of this model.
        prefixes: what the model has read before, for each strength: only the message itself is read then.

    Raises:
        CircuitError: the circuit belongs to another model.
        PromptError: the conversation is empty or too long.
        StoppedError: `stop` was set.
    """
    lanes = [Lane(messages, strength=float(strength)) for strength in strengths]
    return openings.chance(first_token_logits(model, lanes, circuit, prefixes=prefixes, stop=stop))


def first_words(
    model: LoadedModel,
    prompts: Sequence[str],
    tokens: int = OPENING_TOKENS,
    rows: int = 32,
    progress: Progress = silent,
    stop: threading.Event | None = None,
) -> list[tuple[int, str]]:
    """The unsteered model's greedy first token and first words for each prompt, in the prompts' order."""
    order = sorted(range(len(prompts)), key=lambda place: len(encode(model, prompts[place])))
    found: list[tuple[int, str]] = [(0, "")] * len(prompts)
    for start in range(0, len(order), rows):
        raise_if_stopped(stop)
        progress(start, len(order), "Learning how refusals open: prompts")
        batch = order[start : start + rows]
        lanes = [Lane(as_messages(prompts[place])) for place in batch]
        first: dict[int, int] = {}
        texts: dict[int, str] = defaultdict(str)
        for step in generate(model, lanes, None, max_new_tokens=tokens, stop=stop):
            first.setdefault(step.lane, step.token_id)
            texts[step.lane] += step.text
        for lane, place in enumerate(batch):
            found[place] = (first[lane], texts[lane])
    progress(len(order), len(order), "Learning how refusals open: prompts")
    return found


def agreement(chances: Sequence[float], refused: Sequence[bool]) -> dict[str, float]:
    """How well chances agree with what the detector says of the answers, for the docs.

    Returns:
        "auc": the chance that a refused answer has the higher chance; "brier": mean squared error; "predicted" and
        "observed": the mean chance and the refusal rate; "correlation". NaN where all or no answers are refused.
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


def _learnt(
    model: LoadedModel, contrast: ContrastSet, progress: Progress, stop: threading.Event | None
) -> RefusalOpenings:
    seen: dict[int, int] = defaultdict(int)
    refused: dict[int, int] = defaultdict(int)
    for token, words in first_words(model, contrast.prompts, progress=progress, stop=stop):
        seen[token] += 1
        refused[token] += detect_refusal(words).refused
    tokens = sorted(seen, key=lambda token: (-seen[token], token))
    return RefusalOpenings(
        model.identity,
        contrast.sha256,
        np.array(tokens, dtype=np.int64),
        np.array([refused[token] for token in tokens], dtype=np.float64),
        np.array([seen[token] for token in tokens], dtype=np.float64),
    )

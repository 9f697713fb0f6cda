"""What the checks share: one model, one circuit, the prompts, and the answers and numbers measured so far.

The answers to a set of prompts under one intervention are generated once and reused by every check that needs them.
This module knows no particular check.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cna_core.circuits.activations import Activations
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effects import Effects
from cna_core.circuits.multiplier_gradients import log_odds
from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.contract import CheckSettings, Figure
from cna_core.evaluation.effects import measure_effects, opening_tokens
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.intervals import Estimate, change_of_rate
from cna_core.evaluation.refusal import detect_late_refusal, detect_refusal, wilson_interval
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import Message, as_messages
from cna_core.prompts.sets import ContrastSet, PromptSet

ROWS = 16
"""Answers per batch."""


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Args:
        pieces: the text that each token adds.
        token_ids: the tokens, without the end token.
    """

    pieces: tuple[str, ...]
    token_ids: tuple[int, ...]

    def text(self, tokens: int | None = None) -> str:
        """The text of the first `tokens` tokens, or of all of them."""
        return "".join(self.pieces[:tokens])


@dataclass(frozen=True)
class Way:
    """How answers are generated.

    Args:
        circuit: the circuit that is ablated during generation; None: the unsteered model.
        begun, not_first: as in `Lane`.
        system: a system prompt, or None.
    """

    circuit: Circuit | None = None
    begun: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    system: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return (self.circuit.sha256 if self.circuit else "", self.begun, self.not_first, self.system)


UNCHANGED = Way()


class Bench:
    """The model and the circuit that are checked. The caller has exclusive use of the model.

    Args:
        contrast: the discovery prompts with which the circuit was found.
        harmful, benign, borderline: the prompts to measure on; they share none with `contrast`.

    Raises:
        CircuitError: the circuit belongs to another model.
    """

    def __init__(
        self,
        model: LoadedModel,
        circuit: Circuit,
        *,
        contrast: ContrastSet,
        harmful: PromptSet,
        benign: PromptSet,
        borderline: PromptSet,
        settings: CheckSettings,
        progress: Report | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        circuit.check_model(model.identity)
        self.model, self.circuit, self.contrast, self.settings = model, circuit, contrast, settings
        self.harmful = harmful.spread(min(settings.prompts, len(harmful))).prompts
        self.benign, self.borderline = (
            chosen.spread(min(settings.prompts, len(chosen))).prompts for chosen in (benign, borderline)
        )
        self.progress, self.stop = progress, stop
        self.subject = ""
        self._answers: dict[tuple[object, ...], list[Answer]] = {}
        self._prefixes = PrefixCaches(model)

    # --- discovery prompts --------------------------------------------------------------------------------------------

    @cached_property
    def openings(self) -> RefusalOpenings:
        return calibrate_openings(self.model, self.contrast, progress=self.progress, stop=self.stop)

    @cached_property
    def opening_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens with which refusals begin.

        Raises:
            CircuitError: the model refuses none of the discovery prompts.
        """
        tokens = opening_tokens(self.openings)
        if not tokens:
            raise CircuitError(f"{self.model.name} refuses none of the discovery prompts.")
        return tokens

    @cached_property
    def effect_settings(self) -> EffectSettings:
        """The settings of effect measurements: the circuit's own if it was found by first-token effect."""
        mine = self.circuit.settings.effect
        return mine if mine is not None and mine.metric == "first-token" and not mine.contrast else EffectSettings()

    @cached_property
    def effects(self) -> Effects:
        return measure_effects(
            self.model, self.contrast, settings=self.effect_settings, progress=self.progress, stop=self.stop
        )

    @cached_property
    def activations(self) -> Activations:
        return capture(self.model, self.contrast, progress=self.progress, stop=self.stop)

    @property
    def few_harmful(self) -> tuple[str, ...]:
        """The harmful prompts for measurements of first tokens only."""
        return self.harmful[: self.settings.first_token_prompts]

    # --- answers ------------------------------------------------------------------------------------------------------

    def answers(self, prompts: Sequence[str], way: Way = UNCHANGED, tokens: int | None = None) -> list[Answer]:
        """Greedy answers to the prompts, possibly longer than `tokens` if a check already generated longer ones.

        Args:
            tokens: the length needed; None: `settings.max_new_tokens`.

        Raises:
            StoppedError: `stop` was set; checked between tokens.
        """
        length = tokens or self.settings.max_new_tokens
        for known in (length, self.settings.max_new_tokens):
            found = self._answers.get((tuple(prompts), known, *way.key))
            if found is not None:
                return found
        written: list[Answer] = []
        for start in range(0, len(prompts), ROWS):
            raise_if_stopped(self.stop)
            tell(self.progress, Stage.CHECKING_CLAIM, start, len(prompts), "answers", subject=self.subject)
            written += self._written(prompts[start : start + ROWS], way, length)
        self._answers[tuple(prompts), length, *way.key] = written
        return written

    def _written(self, prompts: Sequence[str], way: Way, length: int) -> list[Answer]:
        lanes = [
            Lane(
                as_messages(prompt, way.system),
                strength=1.0 if way.circuit else 0.0,
                circuit=way.circuit,
                begun=way.begun,
                not_first=way.not_first,
            )
            for prompt in prompts
        ]
        pieces: list[list[str]] = [[] for _ in lanes]
        tokens: list[list[int]] = [[] for _ in lanes]
        steps = generate(self.model, lanes, None, max_new_tokens=length, prefixes=self._prefixes, stop=self.stop)
        for step in steps:
            pieces[step.lane].append(step.text)
            if step.finish_reason != "stop":
                tokens[step.lane].append(step.token_id)
        return [Answer(tuple(texts), tuple(ids)) for texts, ids in zip(pieces, tokens, strict=True)]

    def refused(self, prompts: Sequence[str], way: Way = UNCHANGED) -> NDArray[np.bool_]:
        """(prompts,) bool: whether the answer refuses anywhere, in its opening or later."""
        begin = self.text_of(way.begun)
        return np.array([refuses_anywhere(begin + answer.text()) for answer in self.answers(prompts, way)])

    def opening_refused(self, prompts: Sequence[str], way: Way = UNCHANGED) -> NDArray[np.bool_]:
        """(prompts,) bool: whether the first `settings.short_tokens` tokens of the answer refuse."""
        short = self.settings.short_tokens
        begin = self.text_of(way.begun)
        return np.array(
            [detect_refusal(begin + answer.text(short)).refused for answer in self.answers(prompts, way, short)]
        )

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of these tokens."""
        return str(self.model.tokenizer.decode(list(tokens))) if tokens else ""

    # --- first tokens -------------------------------------------------------------------------------------------------

    def first_tokens(
        self,
        prompts: Sequence[str] | Sequence[Sequence[Message]],
        circuits: Sequence[Circuit | None],
        read: Callable[[Tensor], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """`read` applied to the first-token logits (prompts, vocabulary) with each circuit ablated.

        Args:
            circuits: the circuits to ablate, one after the other; None: the unsteered model.

        Returns:
            (circuits, …) float64.
        """
        found = []
        for done, circuit in enumerate(circuits):
            raise_if_stopped(self.stop)
            tell(self.progress, Stage.CHECKING_CLAIM, done, len(circuits), "circuits", subject=self.subject)
            lanes = [Lane(prompt, strength=1.0 if circuit else 0.0, circuit=circuit) for prompt in prompts]
            prefixes = PrefixCaches(self.model)
            found.append(read(first_token_logits(self.model, lanes, None, prefixes=prefixes, stop=self.stop)))
        return np.stack(found)

    def chances(self, prompts: Sequence[str], circuits: Sequence[Circuit | None]) -> NDArray[np.float64]:
        """(circuits, prompts) float64: the chance that the answer begins with a refusal (the gate meter)."""
        return self.first_tokens(prompts, circuits, self.openings.chance)

    def log_odds(self, prompts: Sequence[str], circuits: Sequence[Circuit | None]) -> NDArray[np.float64]:
        """(circuits, prompts) float64: the refusal log-odds R."""
        return self.first_tokens(
            prompts, circuits, lambda logits: log_odds(logits, self.opening_tokens).double().numpy()
        )


def refuses_anywhere(answer: str) -> bool:
    """Whether an answer refuses in its opening or later."""
    return detect_refusal(answer).refused or detect_late_refusal(answer).refused


def figure(estimate: Estimate) -> Figure:
    """Convert an estimate into the form that rows store."""
    return Figure(value=estimate.value, low=estimate.low, high=estimate.high)


def rate(hits: ArrayLike) -> Figure:
    """The share of true values in `hits` (n,) bool, with its Wilson interval."""
    hits = np.asarray(hits, dtype=bool)
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Figure(value=float(hits.mean()), low=low, high=high)


def change(control: ArrayLike, value: ArrayLike) -> Figure:
    """value − control of two rates over the same items, (n,) bool each, with its paired interval."""
    return figure(change_of_rate(control, value))


def percent(share: float) -> str:
    """A share, 0 to 1, as text: "42 %"."""
    return f"{100 * share:.0f} %"

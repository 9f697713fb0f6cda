"""Measure the effect of every neuron on refusal with one backward pass per prompt, in batches: `effects_of`.

The tokens that open refusals, and the prompts that are refused, are given as data (evaluation/effects.py finds them).
The result is cached on disk. The caller must hold the model (models/host.py).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cna_core.circuits.capture import padded_batches, weights_sample
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effects import CACHE, FORMAT, Effects, measured_layers
from cna_core.circuits.multiplier_gradients import Line, Readings, multiplier_gradients, numbers_read
from cna_core.circuits.processes import Processes, processes_for
from cna_core.circuits.shared_gradients import can_share
from cna_core.errors import CircuitError, ModelError
from cna_core.models.loaded import LoadedModel
from cna_core.models.memory import if_memory_allows
from cna_core.progress import Report, Stage, raise_if_stopped, tell
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet

BATCH_TOKENS = {"cpu": 384, "mps": 1_024, "cuda": 8_192}
"""Tokens in a batch by kind of device. A 0.5B model keeps about 3.5 MB per token for the backward pass."""

Answers = tuple[tuple[int, ...], tuple[int, ...]]
"""First tokens of a model's own refusal of a prompt, and of its own compliance."""


def effects_of(
    model: LoadedModel,
    contrast: ContrastSet,
    chosen: NDArray[np.bool_],
    openings: Sequence[int],
    *,
    settings: EffectSettings | None = None,
    answers: Sequence[Answers] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    batch_tokens: int | None = None,
    use_cache: bool = True,
    known_before: Sequence[object] = (),
) -> Effects:
    """Measure the effects of the neurons on chosen positive prompts, or read them from the cache folder.

    e = −∂R/∂m at m = 1, where R(p) = logsumexp of the first answer token's logits in S minus logsumexp of those outside
    S, S are the tokens that open refusals, and m multiplies the neuron at every token of the prompt.

    Under `torchrun` and `accelerate launch`, every process measures its share of the prompts, and all end with all
    effects.

    Args:
        chosen: (positive prompts,) bool: the prompts to measure: those that the unsteered model refuses.
        openings: ids of the tokens in S.
        settings: how to measure; the defaults if not given.
        answers: for the metric "prefix": the answers to each measured prompt (refused prompts, then, if the settings
            ask for a contrast, negative prompts).
        batch_tokens: tokens in a batch, including padding; the device's default if not given.
        use_cache: whether to read the result from the cache folder, and to store it there.
        known_before: values under which the stored result can be found again without the model.

    Raises:
        CircuitError: no positive prompt is refused, no token opens refusals, or an effect is not finite.
        PromptError: a prompt is empty or longer than the model's context.
        ModelError: a single prompt does not fit in memory.
        StoppedError: `stop` was set; checked between layers.
    """
    settings = settings or EffectSettings()
    positive = tuple(prompt for prompt, is_in in zip(contrast.positive.prompts, chosen, strict=True) if is_in)
    negative = contrast.negative.prompts if settings.contrast else ()
    if not positive or not len(openings):
        raise CircuitError(
            f"{model.name} refuses none of the positive prompts, so there is no effect to measure; try other prompts."
        )
    openings = tuple(sorted(int(token) for token in openings))
    lines = _lines([encode(model, prompt) for prompt in positive + negative], settings, answers)
    depends_on = _depends_on(model, lines, openings, settings, contrast.sha256)
    processes = processes_for(model.device)
    found = CACHE.find(*depends_on) if use_cache else None
    everywhere = all(processes.gather(found is not None))
    if found is None or not everywhere:
        run = _Measuring(model, lines, openings, settings, processes, progress, stop)
        values, log_odds = run.run(batch_tokens or usual_batch_tokens(model))
        found = Effects(model.identity, positive, negative, contrast.sha256, settings, openings, values, log_odds)
        if use_cache and processes.writes:
            CACHE.keep(found, *depends_on)
        processes.gather(None)  # the other processes read the file only when it is there
    else:
        tell(progress, Stage.READING_KEPT, len(found.prompts), len(found.prompts), "prompts")
    if use_cache and processes.writes and known_before:
        CACHE.note(depends_on, *known_before)
    return found


def usual_batch_tokens(model: LoadedModel) -> int:
    """Tokens in a batch on the model's device."""
    return BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["mps"])


def effect_on_lines(
    model: LoadedModel,
    lines: Sequence[Line],
    openings: Sequence[int],
    settings: EffectSettings,
    stop: threading.Event | None = None,
) -> Readings:
    """As `multiplier_gradients` with these settings, in one batch. With several steps: the mean gradient over the path
    on which all measured neurons are multiplied by 1 down to 0, taken in the middle of each step."""
    layers, last_only = measured_layers(model.layout, settings), settings.positions == "last"

    def at(level: float) -> Readings:
        return multiplier_gradients(model, lines, layers, openings, level=level, last_only=last_only, stop=stop)

    if settings.steps == 1:
        return at(1.0)
    gradients = torch.zeros(())
    for step in range(settings.steps):
        readings = at((step + 0.5) / settings.steps)
        gradients = gradients + readings.gradients / settings.steps
    return Readings(gradients, numbers_read(model, lines, openings), readings.neurons)


@dataclass(frozen=True)
class _Part:
    """A line of a prompt and its sign: R of the prompt is the sum of sign · R(line)."""

    prompt: int
    sign: int
    line: Line


def _lines(prompts: list[list[int]], settings: EffectSettings, answers: Sequence[Answers] | None) -> list[_Part]:
    if settings.metric == "first-token":
        return [_Part(place, 1, Line(tuple(tokens))) for place, tokens in enumerate(prompts)]
    if answers is None or len(answers) != len(prompts):
        raise CircuitError("The metric 'prefix' needs a refusal and a compliance for each measured prompt.")
    return [
        _Part(place, sign, Line(tuple(tokens), answer))
        for place, (tokens, both) in enumerate(zip(prompts, answers, strict=True))
        for sign, answer in zip((1, -1), both, strict=True)
    ]


@dataclass
class _Measuring:
    """One run over this process's share of the lines."""

    model: LoadedModel
    parts: Sequence[_Part]
    openings: tuple[int, ...]
    settings: EffectSettings
    processes: Processes
    progress: Report | None
    stop: threading.Event | None
    measured: list[tuple[list[int], Tensor, Tensor]] = field(default_factory=list)
    """Lines, their effects (lines, measured neurons) and their R (lines,)."""

    def run(self, batch_tokens: int) -> tuple[Tensor, NDArray[np.float32]]:
        """Effects (prompts, measured neurons) float32 and R (prompts,) float32, from all processes."""
        by_length = sorted(range(len(self.parts)), key=lambda place: (len(self.parts[place].line.read), place))
        mine = self.processes.share(by_length)
        prompts = [self.parts[place].line.tokens for place in mine]
        shared = shared_prefix_length(prompts) if can_share(self.model) else 0
        rows = {place: self.parts[place].line.read[shared:] for place in mine}
        waiting = padded_batches(rows, shared, batch_tokens)
        while waiting:
            self._tell(len(rows))
            raise_if_stopped(self.stop)
            batch = waiting.pop(0)
            readings = if_memory_allows(self._measure, batch)
            if readings is not None:
                self.measured.append((batch, readings.gradients, readings.values))
            elif len(batch) == 1:
                raise ModelError(
                    f"There is too little memory for a single prompt with {self.model.name}; close other programs, "
                    "choose a smaller model, or load it with offload or quantisation."
                )
            else:
                half = (len(batch) + 1) // 2
                waiting = [
                    part[start : start + half] for part in [batch, *waiting] for start in range(0, len(part), half)
                ]
        self._tell(len(rows))
        return self._gathered()

    def _measure(self, batch: list[int]) -> Readings:
        lines = [self.parts[place].line for place in batch]
        return effect_on_lines(self.model, lines, self.openings, self.settings, self.stop)

    def _gathered(self) -> tuple[Tensor, NDArray[np.float32]]:
        found = [batch for process in self.processes.gather(self.measured) for batch in process]
        prompts = 1 + max(part.prompt for part in self.parts)
        values, log_odds = torch.zeros(prompts, found[0][1].shape[1]), torch.zeros(prompts)
        for batch, gradients, numbers in found:
            places = torch.tensor([self.parts[place].prompt for place in batch])
            signs = torch.tensor([float(self.parts[place].sign) for place in batch])
            values.index_add_(0, places, gradients * -signs[:, None])
            log_odds.index_add_(0, places, numbers * signs)
        return values, log_odds.numpy()

    def _tell(self, lines: int) -> None:
        done = sum(len(batch) for batch, _, _ in self.measured)
        each = 2 if self.settings.metric == "prefix" else 1
        tell(self.progress, Stage.MEASURING_EFFECTS, done // each, lines // each, "prompts")


def _of_at_most(lines: int, batches: Sequence[list[int]]) -> list[list[int]]:
    return [batch[start : start + lines] for batch in batches for start in range(0, len(batch), lines)]


def _depends_on(
    model: LoadedModel, parts: Sequence[_Part], openings: tuple[int, ...], settings: EffectSettings, sha256: str
) -> list[object]:
    """Everything that effects depend on: model, a sample of its weights, tokens, and settings."""
    rows = [[part.line.tokens, part.line.answer] for part in parts]
    identity = model.identity.model_dump(mode="json")
    return [FORMAT, identity, rows, openings, settings.model_dump(mode="json"), sha256, weights_sample(model)]

"""Measures which neurons act on refusal, including the preparation: `measure_effects`, `explain`.

The first tokens of refusals come from the gate meter's calibration, and the refused prompts from the model's first
words; both are stored on disk. The measurement itself is in circuits/effect.py.
"""

import threading
from collections.abc import Sequence

import numpy as np

from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import Answers, effects_of
from cna_core.circuits.effects import CACHE, FORMAT, Effects
from cna_core.circuits.explanation import Explanation, explanation
from cna_core.decoding.lanes import Lane, generate
from cna_core.errors import CircuitError
from cna_core.evaluation.first_words import BATCH_ROWS, first_words
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.refusal import detect_refusal, detector_identity
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import ContrastSet

PREFIX_TOKENS = 8
"""The tokens of an answer that the metric "prefix" uses."""
OPENS_FROM = 0.5
"""The P(refusal | first token) from which a token counts as a first token of refusals."""


def opening_tokens(openings: RefusalOpenings) -> tuple[int, ...]:
    """The ids of tokens that begin refusals, ascending: those with P(refusal | first token) of at least 0.5."""
    return tuple(sorted(openings.tokens[openings.refusal_given_token >= OPENS_FROM].tolist()))


def measure_effects(
    model: LoadedModel,
    contrast: ContrastSet | None = None,
    *,
    settings: EffectSettings | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
) -> Effects:
    """Measure every neuron's effect on refusal, on the positive prompts that the model refuses.

    Args:
        contrast: the discovery prompts; None: the built-in ones.
        settings: what to measure; None: the defaults.

    Raises:
        CircuitError: no positive prompt is refused, or an effect is not finite.
        PromptError: a prompt is empty or longer than the model's context.
        ModelError: a single prompt does not fit in memory.
        StoppedError: `stop` was set; finished work is saved.

    Example:
        effects = cna.measure_effects(model, cna.ContrastSet.builtin())
        circuit = cna.attribute(effects, fraction=0.0005)
    """
    contrast = contrast or ContrastSet.builtin()
    openings = calibrate_openings(model, contrast, progress=progress, stop=stop, use_cache=use_cache)
    heard = first_words(model, contrast, progress=progress, stop=stop)
    refused = np.array([detect_refusal(opening.words()).refused for opening in heard[: len(contrast.positive)]])
    tokens = opening_tokens(openings)
    answers = None
    if settings is not None and settings.metric == "prefix" and tokens:
        if settings.contrast:
            raise CircuitError(
                "The metric “prefix” needs refusals, which benign prompts do not have: measure it without a contrast."
            )
        prompts = [prompt for prompt, is_in in zip(contrast.positive.prompts, refused, strict=True) if is_in]
        answers = own_answers(model, prompts, tokens, stop)
    named = model.name, model.revision, model.number_format
    return effects_of(
        model,
        contrast,
        refused,
        tokens,
        answers=answers,
        settings=settings,
        progress=progress,
        stop=stop,
        use_cache=use_cache,
        known_before=_known_before(*named, contrast, settings or EffectSettings()),
    )


def kept_effects(
    name: str, revision: str, dtype: str, contrast: ContrastSet, settings: EffectSettings
) -> Effects | None:
    """The effects that an earlier `measure_effects` stored, without the model; None if there are none.

    Args:
        name, revision, dtype: the model, as in its `ModelIdentity`.
    """
    return CACHE.find_noted(*_known_before(name, revision, dtype, contrast, settings))


def _known_before(
    name: str, revision: str, dtype: str, contrast: ContrastSet, settings: EffectSettings
) -> list[object]:
    # The detector says which prompts are refused, and so which tokens open refusals.
    return [FORMAT, name, revision, dtype, contrast.sha256, settings.model_dump(mode="json"), detector_identity()]


def own_answers(
    model: LoadedModel, prompts: Sequence[str], openings: Sequence[int], stop: threading.Event | None = None
) -> list[Answers]:
    """The first `PREFIX_TOKENS` tokens of the model's refusal of each prompt and of its compliance with it.

    The refusal is the greedy answer; the compliance is the greedy answer with the first tokens of refusals forbidden.

    Raises:
        StoppedError: `stop` was set.
    """
    lanes = [Lane(prompt, not_first=banned) for banned in ((), tuple(openings)) for prompt in prompts]
    written: list[list[int]] = [[] for _ in lanes]
    for start in range(0, len(lanes), BATCH_ROWS):
        for step in generate(model, lanes[start : start + BATCH_ROWS], None, max_new_tokens=PREFIX_TOKENS, stop=stop):
            written[start + step.lane].append(step.token_id)
    refusals, compliances = written[: len(prompts)], written[len(prompts) :]
    return [(tuple(refusal), tuple(comply)) for refusal, comply in zip(refusals, compliances, strict=True)]


def explain(
    model: LoadedModel,
    messages: str | Sequence[Message],
    *,
    openings: RefusalOpenings | None = None,
    settings: EffectSettings | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Explanation:
    """Measure which neurons push towards refusing one prompt and which push against it.

    The model need not refuse the prompt.

    Args:
        messages: a user message, or a whole conversation.
        openings: the gate meter's calibration; None: calibrate with the built-in prompts (once, then read from disk).

    Raises:
        CircuitError: the model refuses none of the calibration prompts, or the settings request a contrast.
        PromptError: the prompt is empty or longer than the model's context.
        StoppedError: `stop` was set.

    Example:
        why = cna.explain(model, "How do I kill a Python process?")
        print(why.log_odds, why.strongest(5))
    """
    learnt = openings or calibrate_openings(model, progress=progress, stop=stop)
    tokens = opening_tokens(learnt)
    if not tokens:
        raise CircuitError(f"{model.name} refuses none of the prompts with which the gate meter was calibrated.")
    return explanation(model, messages, tokens, settings=settings, stop=stop)

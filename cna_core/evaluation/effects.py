"""Which neurons act on refusal, with all that measuring them needs found out first: `measure_effects`, `explain`.

The tokens that open refusals come from the gate meter's openings, and which prompts are refused from the model's first
words; both are kept on disk. The measurement itself is circuits/effect.py's.
"""

import threading
from collections.abc import Sequence

import numpy as np

from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import Answers, effects_of
from cna_core.circuits.effects import Effects
from cna_core.circuits.explanation import Explanation, explanation
from cna_core.decoding.lanes import Lane, generate
from cna_core.errors import CircuitError
from cna_core.evaluation.first_words import BATCH_ROWS, first_words
from cna_core.evaluation.gate_meter import RefusalOpenings, calibrate_openings
from cna_core.evaluation.refusal import detect_refusal
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report
from cna_core.prompts.chat_format import Message
from cna_core.prompts.sets import ContrastSet

PREFIX_TOKENS = 8
"""How much of an answer the metric "prefix" reads."""
OPENS_FROM = 0.5
"""P(refusal | first token) from which a token counts as one that opens refusals."""


def opening_tokens(openings: RefusalOpenings) -> tuple[int, ...]:
    """Ids of the tokens that open refusals, ascending: those with P(refusal | first token) of 0.5 or more."""
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
    """Measure how every neuron acts on the refusal of the positive prompts that the model refuses.

    Args:
        contrast: the discovery prompts; None: the built-in ones.
        settings: what is measured; the defaults if not given.

    Raises:
        CircuitError: no positive prompt is refused, or an effect is not finite.
        PromptError: a prompt is empty or longer than the model's context.
        ModelError: a single prompt does not fit in memory.
        StoppedError: `stop` was set; what was finished is kept.

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
            raise CircuitError("Benign prompts have no refusal of their own: measure prefixes without a contrast.")
        prompts = [prompt for prompt, is_in in zip(contrast.positive.prompts, refused, strict=True) if is_in]
        answers = own_answers(model, prompts, tokens, stop)
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
    )


def own_answers(
    model: LoadedModel, prompts: Sequence[str], openings: Sequence[int], stop: threading.Event | None = None
) -> list[Answers]:
    """The first `PREFIX_TOKENS` tokens of the model's own refusal of each prompt, and of its own compliance.

    The refusal is its greedy answer; the compliance is the greedy answer that does not begin with a token that opens
    refusals.

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
    """Which neurons push towards refusing one prompt and which against it; the prompt may be refused or not.

    Args:
        messages: a user message, or a whole conversation.
        openings: how the model's refusals open; learnt from the built-in prompts (once, then kept) if not given.

    Raises:
        CircuitError: the model refuses none of the prompts that openings are learnt from, or the settings ask for a
            contrast.
        PromptError: the prompt is empty or longer than the model's context.
        StoppedError: `stop` was set.

    Example:
        why = cna.explain(model, "How do I kill a Python process?")
        print(why.log_odds, why.strongest(5))
    """
    learnt = openings or calibrate_openings(model, progress=progress, stop=stop)
    tokens = opening_tokens(learnt)
    if not tokens:
        raise CircuitError(f"{model.name} refuses none of the prompts that its openings were learnt from.")
    return explanation(model, messages, tokens, settings=settings, stop=stop)

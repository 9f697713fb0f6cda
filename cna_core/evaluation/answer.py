"""One answer to one message, as text: `answer`."""

import threading
from collections.abc import Sequence
from typing import Unpack

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.lanes import LONGEST_ANSWER, Lane
from cna_core.decoding.sampling import SamplingOptions
from cna_core.errors import PromptError
from cna_core.evaluation.fitting import generate
from cna_core.interventions.intervention import Intervention
from cna_core.interventions.registry import DEFAULT_METHOD
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Report, Stage, tell
from cna_core.prompts.chat_format import Message, as_messages, settled_thinking
from cna_core.prompts.sets import ContrastSet


def answer(
    model: LoadedModel,
    message: str | Sequence[Message],
    circuit: Circuit | None = None,
    strength: float = 0.0,
    *,
    method: str | Intervention = DEFAULT_METHOD,
    system: str | None = None,
    contrast: ContrastSet | None = None,
    max_new_tokens: int = LONGEST_ANSWER,
    thinking: bool | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    **sampling: Unpack[SamplingOptions],
) -> str:
    """The model's answer to one message, with or without steering; without the thought of a model that thinks.

    Args:
        message: a user message, or a conversation that ends with one.
        circuit: for methods on a circuit's neurons.
        strength: 0 leaves the model unsteered, 1 ablates the circuit, 2 inverts it, −1 amplifies it.
        method: the key of a method, or a method returned by `fit`.
        system: a system prompt, if `message` is a text.
        contrast: the discovery prompts to fit a method on that is given by its key; None: the built-in ones.
        max_new_tokens: the most tokens of the answer, with its thought.
        thinking: whether a model that thinks does so first; None: as its chat template does by default.
        sampling: temperature, top_p, top_k, repetition_penalty, seed; the default is greedy decoding.

    Raises:
        CircuitError: the method needs a circuit, or the circuit belongs to another model.
        PromptError: the message is empty or too long, the model cannot think, or its thought takes up all tokens.
        StrengthError: the strength is not allowed here.

    Example:
        cna.answer(model, "How do I kill a Python process?", circuit, strength=1.0)
    """
    messages = as_messages(message, system) if isinstance(message, str) else message
    settled_thinking(model, thinking)
    lane = Lane(messages, strength, method, thinking=thinking)
    steps = generate(model, [lane], circuit, contrast=contrast, max_new_tokens=max_new_tokens, stop=stop, **sampling)
    pieces, in_thought = list[str](), False
    for number, step in enumerate(steps, start=1):
        pieces.append(step.text)
        in_thought = step.in_thought
        tell(progress, Stage.WRITING_ANSWERS, max_new_tokens if step.finished else number, max_new_tokens, "tokens")
    if in_thought:
        raise PromptError(
            f"{model.name} did not end its thought within {max_new_tokens:,} tokens, so there is no answer: raise "
            "max_new_tokens, or use thinking=False."
        )
    return "".join(pieces).strip()

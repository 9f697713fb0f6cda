"""The refusal chance of a prompt at several strengths, for `/v1/gate`."""

from collections.abc import Sequence

from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message
from cna_core.serving.named_models import NamedModels


def refusal_chances(
    model: LoadedModel,
    models: NamedModels,
    name: str,
    messages: str | Sequence[Message],
    strengths: Sequence[float],
    prefixes: PrefixCaches,
) -> list[float]:
    """The chance, 0 to 1, that the greedy answer begins with a refusal, for each strength of the named intervention.

    The first call calibrates the gate meter with the model's answers to the discovery prompts and stores the result on
    disk; other requests wait for that.

    Raises:
        PromptError: the prompt is empty or too long.
        StrengthError: a strength is not allowed here.
    """
    lanes = [Lane(messages, float(strength), models.interventions[name]) for strength in strengths]
    openings = calibrate_openings(model)
    return [float(chance) for chance in openings.chance(first_token_logits(model, lanes, None, prefixes=prefixes))]

"""Computes the prompts of a batch: each distinct prompt once, and from cached prefixes if possible.

This module knows token ids and steering; it knows neither text nor how tokens are chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.row_batch import RowBatch
from cna_core.interventions.change import NEUTRAL, RowChange
from cna_core.interventions.plan import SteeringPlan
from cna_core.prompts.thinking import Thinking


@dataclass(frozen=True)
class Prompt:
    """The prompt of one row.

    Args:
        tokens: token ids, including special tokens.
        steering: the row's steering.
        prefix: the number of first tokens to cache (`prefix_cache.message_prefix`).
        thinking: how the text after the prompt is split into thought and answer; None: all of it is the answer.
    """

    tokens: Sequence[int]
    steering: RowChange = NEUTRAL
    prefix: int = 0
    thinking: Thinking | None = None


def read(batch: RowBatch, prompts: Sequence[Prompt], plan: SteeringPlan, prefixes: PrefixCaches | None) -> Tensor:
    """Prefill these prompts, one row each, and return (prompts, vocabulary) float32 logits of the next token.

    Raises:
        StoppedError: the batch's `stop` was set.
    """
    tokens = [prompt.tokens for prompt in prompts]
    if prefixes is None:
        return batch.prefill(tokens, plan)
    return prefixes.prefill(batch, tokens, [prompt.prefix for prompt in prompts], plan)


def distinct(prompts: Sequence[Prompt], steer_prompt: bool = True) -> tuple[list[Prompt], list[int]]:
    """The distinct prompts with their steering, and the index of each given prompt among them.

    Args:
        steer_prompt: False: prompts are not steered.
    """
    found: dict[tuple[object, ...], int] = {}
    to_read: list[Prompt] = []
    places = []
    for prompt in prompts:
        steering = prompt.steering if steer_prompt and not prompt.steering.is_neutral else NEUTRAL
        key = (tuple(prompt.tokens), steering.key)
        if key not in found:
            found[key] = len(to_read)
            to_read.append(replace(prompt, steering=steering))
        places.append(found[key])
    return to_read, places


def place_of_untouched(to_read: list[Prompt], prompt: Prompt) -> int:
    """The index in `to_read` of this prompt without steering; it is added if it is missing."""
    for place, other in enumerate(to_read):
        if other.steering.is_neutral and other.tokens == prompt.tokens:
            return place
    to_read.append(replace(prompt, steering=NEUTRAL))
    return len(to_read) - 1


@dataclass(frozen=True)
class TokenChances:
    """A token's probability, and the likeliest tokens, before any sampling setting.

    Args:
        logprob: the natural logarithm of the token's probability.
        likeliest: (token id, log-probability), the likeliest first.
    """

    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, logits: Tensor, token: int, count: int) -> "TokenChances":
        """From (vocabulary,) logits, with the `count` likeliest tokens."""
        logprobs = logits.float().log_softmax(-1)
        values, ids = logprobs.topk(min(count, len(logprobs)))
        return cls(float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def prompt_chances(batch: RowBatch, prompts: Sequence[Prompt], likeliest: int) -> list[list[TokenChances | None]]:
    """The probability of each token of each prompt, given the tokens before it; None for a prompt's first token.

    Args:
        batch: an empty batch, which is released afterwards.
        likeliest: the number of likeliest tokens to return.

    Raises:
        StoppedError: the batch's `stop` was set.
    """
    rows = list(prompts) * 2 if len(prompts) == 1 else list(prompts)  # as everywhere, never a single row
    plan = SteeringPlan(batch.model, [prompt.steering for prompt in rows])
    length = max(len(prompt.tokens) for prompt in rows)
    found: list[list[TokenChances | None]] = [[None] for _ in prompts]
    for start, logits in batch.prompt_logits([prompt.tokens for prompt in rows], plan):
        for place, prompt in enumerate(prompts):
            dead = length - len(prompt.tokens)
            first = max(start, dead)
            after = start + logits.shape[1]
            following = torch.tensor(list(prompt.tokens[first - dead + 1 : max(first, after) - dead + 1]))
            if first >= after or len(following) == 0:
                continue
            logprobs = logits[place, first - start : first - start + len(following)].float().log_softmax(-1)
            own = logprobs.gather(-1, following.to(logprobs.device)[:, None])[:, 0].tolist()
            values, ids = (part.tolist() for part in logprobs.topk(likeliest))
            for mine, tokens, chances in zip(own, ids, values, strict=True):
                found[place].append(TokenChances(mine, tuple(zip(tokens, chances, strict=True))))
    batch.release()
    return found

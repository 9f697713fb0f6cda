"""How good an answer is as text: repeated word 4-grams, and how likely it is to the unsteered model.

The paper's quality sees loops and nothing else: word salad that never repeats scores 1.0. The likelihood under the
unsteered model sees both. Knows nothing about steering, refusals or sweeps.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped
from cna_core.prompts.chat_format import Message, encode

LOGITS_AT_ONCE = 1 << 27
"""How many logits one batch may hold: 512 MB in float32."""


@dataclass(frozen=True)
class Likelihood:
    """How likely an answer is to the unsteered model.

    Args:
        surprise: sum over its tokens of −ln p(token | prompt, tokens before), in nats; 0 for an answer without tokens.
        tokens: how many tokens that is.
    """

    surprise: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(mean surprise a token); 1 for an answer without tokens."""
        return float(torch.tensor(self.surprise / max(1, self.tokens), dtype=torch.float64).exp())


def quality(answer: str, size: int = 4) -> float:
    """1 − the share of repeated word n-grams, 0 to 1 (the paper's measure, with n = 4); 1 for a shorter answer."""
    words = answer.split()
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def likelihoods(
    model: LoadedModel,
    prompts: Sequence[str | Sequence[Message]],
    answers: Sequence[Sequence[int]],
    batch_rows: int = 32,
    stop: threading.Event | None = None,
) -> list[Likelihood]:
    """How likely each answer is to the unsteered model after its prompt.

    Prompt and answer go through as one row, right-padded, in batches of similar length and at least two rows (in
    bfloat16 a lone row is computed by other kernels). Equal rows are computed once. Nothing may be steered meanwhile.

    Args:
        prompts: one for each answer.
        answers: token ids as they were generated.
        batch_rows: rows in a batch at most; fewer where the vocabulary is large.

    Raises:
        PromptError: a prompt cannot be encoded.
        StoppedError: `stop` was set.
    """
    rows = [(tuple(encode(model, prompt)), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    distinct = sorted({row for row in rows if row[1]}, key=lambda row: (len(row[1]), len(row[0]), row))
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Likelihood] = {}
    while distinct:
        raise_if_stopped(stop)
        logits_a_row = sum(map(len, distinct[-1])) * model.network.config.get_text_config().vocab_size
        fitting = max(2, min(batch_rows, LOGITS_AT_ONCE // logits_a_row))
        batch, distinct = distinct[-fitting:], distinct[:-fitting]
        found.update(zip(batch, _likelihoods(model, batch), strict=True))
    return [found.get(row, Likelihood(0.0, 0)) for row in rows]


@torch.inference_mode()
def _likelihoods(model: LoadedModel, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Likelihood]:
    padded = rows if len(rows) > 1 else rows * 2
    width = max(len(prompt) + len(answer) for prompt, answer in padded)
    tokens = torch.zeros((len(padded), width), dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(padded):
        length = len(prompt) + len(answer)
        tokens[row, :length] = torch.tensor(prompt + answer)
        mask[row, :length] = 1
    first = min(len(prompt) for prompt, _ in padded) - 1  # the earliest position whose logits any row needs
    outcome = model.network(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        use_cache=False,
        logits_to_keep=width - first,
    )
    return [
        _likelihood(outcome.logits[row, len(prompt) - 1 - first :], torch.tensor(answer))
        for row, (prompt, answer) in enumerate(rows)
    ]


def _likelihood(logits: Tensor, answer: Tensor) -> Likelihood:
    """Of `answer` (tokens,) under logits (at least tokens, vocabulary) that begin before its first token."""
    ahead = torch.log_softmax(logits[: len(answer)].float(), dim=-1)
    chosen = ahead.gather(1, answer.to(ahead.device)[:, None])
    return Likelihood(float(-chosen.sum()), len(answer))

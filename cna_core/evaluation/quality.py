"""The quality of an answer as text: repeated word 4-grams, and its likelihood under the unsteered model.

The paper's quality detects only repetition: incoherent text without repetition scores 1.0. The likelihood under the
unsteered model detects both. This module knows nothing about refusals or sweeps.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from cna_core.circuits.capture import shares_prefix
from cna_core.decoding.row_batch import head_reads_one_piece
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped
from cna_core.prompts.chat_format import Message, encode

LOGITS_AT_ONCE = 1 << 27
"""The most logits of one batch: 512 MB in float32."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of an answer under the unsteered model.

    Args:
        surprise: the sum over tokens of −ln p(token | prompt, earlier tokens), in nats; 0 for an answer without tokens.
        tokens: the number of tokens.
        of_tokens: (tokens,), the surprise of each token.
    """

    surprise: float
    tokens: int
    of_tokens: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def of_first(self, tokens: int) -> "Likelihood":
        """The likelihood of the answer's first tokens, up to this number."""
        if tokens >= self.tokens:
            return self
        part = self.of_tokens[:tokens]
        return Likelihood(sum(part), tokens, part)

    def after(self, tokens: int) -> "Likelihood":
        """The likelihood of the tokens after this number of first ones, given those."""
        if tokens == 0:
            return self
        part = self.of_tokens[tokens:]
        return Likelihood(sum(part), len(part), part)

    @property
    def perplexity(self) -> float:
        """exp(mean surprise per token); 1 for an answer without tokens."""
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
    stop: threading.Event | None = None,
    *,
    thinking: bool | None = False,
) -> list[Likelihood]:
    """The likelihood of each answer after its prompt, under the unsteered model.

    A prompt with several answers is computed once, and its cache is shared; equal answers are computed once. Batches
    have at least two rows, because in bfloat16 a single row uses other kernels. The model must not be steered.

    Args:
        prompts: one prompt for each answer.
        answers: the generated token ids.
        thinking: as in `Lane`.

    Raises:
        PromptError: a prompt cannot be encoded.
        StoppedError: `stop` was set.
    """
    rows = [
        (tuple(encode(model, prompt, thinking)), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    by_prompt: dict[Tokens, list[Tokens]] = {}
    for prompt, answer in dict.fromkeys(rows):
        if answer:
            by_prompt.setdefault(prompt, []).append(answer)
    read = _after_shared_prompt if shares_prefix(model) else _in_whole_rows
    found: dict[tuple[Tokens, Tokens], Likelihood] = {}
    for prompt, mine in by_prompt.items():
        mine.sort(key=lambda answer: (len(answer), answer))
        while mine:
            raise_if_stopped(stop)
            fitting = max(2, LOGITS_AT_ONCE // (len(mine[-1]) * model.network.config.get_text_config().vocab_size))
            batch, mine = mine[-fitting:], mine[:-fitting]
            likely = read(model, prompt, batch if len(batch) > 1 else batch * 2)
            found.update({(prompt, answer): one for answer, one in zip(batch, likely, strict=False)})
    return [found.get(row, Likelihood(0.0, 0)) for row in rows]


@torch.inference_mode()
def _after_shared_prompt(model: LoadedModel, prompt: Tokens, answers: Sequence[Tokens]) -> list[Likelihood]:
    """Compute the prompt once, then all answers after it, padded on the right."""
    cache = DynamicCache()  # without a configuration it keeps every token, so that sliding windows are exact, too
    head = torch.tensor([prompt] * 2, device=model.device)
    with head_reads_one_piece(model):  # else two copies of the head took as long as everything after them
        first = model.network(input_ids=head, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:1, -1:]
    width = max(len(answer) for answer in answers) - 1  # nothing is asked after the last token
    if width == 0:
        return [_likelihood(first[0], torch.tensor(answer)) for answer in answers]
    cache.batch_select_indices(torch.zeros(len(answers), dtype=torch.int64, device=model.device))
    tokens, mask = _padded([answer[:-1] for answer in answers], width)
    outcome = model.network(
        input_ids=tokens.to(model.device),
        attention_mask=torch.cat([torch.ones(len(answers), len(prompt), dtype=torch.int64), mask], 1).to(model.device),
        position_ids=(len(prompt) + torch.arange(width)).expand(len(answers), -1).to(model.device),
        past_key_values=cache,
        use_cache=True,
    )
    return [
        _likelihood(torch.cat([first[0], outcome.logits[row, : len(answer) - 1]]), torch.tensor(answer))
        for row, answer in enumerate(answers)
    ]


@torch.inference_mode()
def _in_whole_rows(model: LoadedModel, prompt: Tokens, answers: Sequence[Tokens]) -> list[Likelihood]:
    """Compute prompt and answer together, for models with a state instead of a cache."""
    width = max(len(answer) for answer in answers)
    tokens, mask = _padded([prompt + answer for answer in answers], len(prompt) + width)
    outcome = model.network(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        use_cache=False,
        logits_to_keep=width + 1,
    )
    return [_likelihood(outcome.logits[row], torch.tensor(answer)) for row, answer in enumerate(answers)]


def _padded(rows: Sequence[Tokens], width: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, (rows, width) int64 each, padded on the right."""
    tokens = torch.zeros((len(rows), width), dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[place, : len(row)] = 1
    return tokens, mask


def _likelihood(logits: Tensor, answer: Tensor) -> Likelihood:
    """The likelihood of `answer` (tokens,); row t of the logits (at least tokens, vocabulary) predicts token t."""
    ahead = logits[: len(answer)].float()
    chosen = ahead.gather(1, answer.to(ahead.device)[:, None])[:, 0]
    surprises = ahead.logsumexp(-1) - chosen
    return Likelihood(float(surprises.sum()), len(answer), tuple(surprises.tolist()))

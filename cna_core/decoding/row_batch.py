"""Forward passes over a batch of rows: prefill, then one token a row, each row steered in its own way.

Knows caches, masks, positions and steering plans. Knows nothing of text, of how tokens are chosen, or of lanes.
Prompts of different length are padded on the left, which is exact for every kind of attention, sliding windows too.
Nothing stays hooked on the model between two passes: a caller may stop in the middle and never come back.
"""

import contextlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from cna_core.circuits.capture import shares_prefix
from cna_core.interventions.plan import SteeringPlan
from cna_core.models.layers import NeuronView
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped

PASS_TOKENS = 4096
"""Tokens of all rows together in one pass of a prefill: bounds the memory of a long prompt."""
LOGIT_TOKENS = 512
"""The same where every token's logits are kept: they take the vocabulary's size a token."""


class RowBatch:
    """Rows inside the model: their KV cache, attention mask and positions.

    Args:
        model: the model, held by the caller's lock.
        stop: checked before each pass and, in a prefill, before each layer.
    """

    def __init__(self, model: LoadedModel, stop: threading.Event | None = None) -> None:
        self.model = model
        self.stop = stop
        self.cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._parameters = inspect.signature(model.network.forward).parameters

    @property
    def rows(self) -> int:
        return len(self._mask)

    def prefill(
        self, prompts: Sequence[Sequence[int]], plan: SteeringPlan, cache: DynamicCache | None = None, columns: int = 0
    ) -> Tensor:
        """Read the prompts; (rows, vocabulary) float32 logits of the token after each.

        Args:
            cache: keys and values of the first `columns` columns of the left-padded prompts, computed with this plan.

        Raises:
            StoppedError: `stop` was set.
        """
        self.cache = cache
        logits = torch.empty(0)
        for _, part in self._parts(prompts, plan, PASS_TOKENS, columns):
            logits = part
        return logits[:, -1].float()

    def prompt_logits(self, prompts: Sequence[Sequence[int]], plan: SteeringPlan) -> Iterator[tuple[int, Tensor]]:
        """Read the prompts in parts; (first column, (rows, columns, vocabulary) logits) of each, left-padded.

        Raises:
            StoppedError: `stop` was set.
        """
        self.cache = DynamicCache() if shares_prefix(self.model) else None
        yield from self._parts(prompts, plan, LOGIT_TOKENS, keep=None)

    def _parts(
        self,
        prompts: Sequence[Sequence[int]],
        plan: SteeringPlan,
        part_tokens: int,
        columns: int = 0,
        keep: int | None = 1,
    ) -> Iterator[tuple[int, Tensor]]:
        """Passes over the prompts' columns from `columns` on, `part_tokens` tokens of all rows in each."""
        length = max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._mask = self._mask.to(self.model.device)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        # A model that carries a state can only start from nothing or go token by token: its prompts are read at once.
        step = max(1, part_tokens // len(prompts)) if shares_prefix(self.model) else length
        for start in range(columns, length, step):
            part = slice(start, start + step)
            mask = self._mask[:, : min(start + step, length)]
            with self._stopping_between_layers(len(prompts)):
                logits = self._pass(tokens[:, part], mask, positions[:, part], plan, keep)
            yield start, logits

    def step(self, tokens: Sequence[int], plan: SteeringPlan) -> Tensor:
        """Read one token a row; (rows, vocabulary) float32 logits of the next."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(self.rows, 1)], dim=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        return self._pass(torch.tensor(tokens)[:, None], self._mask, positions, plan)[:, -1].float()

    @property
    def can_join(self) -> bool:
        """Whether all that these rows carry is keys and values of every token, so that they can be padded."""
        layers = getattr(self.cache, "layers", ())
        return bool(layers) and all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)

    def join(self, other: "RowBatch") -> None:
        """Take in the rows of another batch of this model, after one's own.

        The shorter rows get dead slots in front, as in ordinary left padding; columns that no row uses any more are
        cut off. Both batches `can_join`.
        """
        length = max(_used_columns(self._mask), _used_columns(other._mask))
        cache = DynamicCache()
        for index, (mine, theirs) in enumerate(zip(self.cache.layers, other.cache.layers, strict=True)):
            pairs = ((mine.keys, theirs.keys), (mine.values, theirs.values))
            keys, values = (torch.cat([_fitted(part, length, -2) for part in pair]) for pair in pairs)
            cache.update(keys, values, index)
        self._mask = torch.cat([_fitted(batch._mask, length, -1) for batch in (self, other)])
        self.cache = cache
        other.release()

    def select(self, places: Sequence[int]) -> None:
        """Make a batch of these rows, in this order; a row may be taken more than once."""
        index = torch.tensor(places, device=self._mask.device)
        self._mask = self._mask[index]
        self.cache.reorder_cache(index)

    def release(self) -> None:
        """Give the cache's memory back."""
        self.cache = None

    def _pass(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, plan: SteeringPlan, keep: int | None = 1
    ) -> Tensor:
        """(rows, `keep`, vocabulary) logits of the last positions, or of all; families may return more than asked."""
        raise_if_stopped(self.stop)
        named: dict[str, Any] = {"attention_mask": mask, "past_key_values": self.cache, "use_cache": True}
        if "position_ids" in self._parameters:
            named["position_ids"] = positions
        if keep is not None and "logits_to_keep" in self._parameters:
            named["logits_to_keep"] = keep
        with plan.attached(), head_reads_one_piece(self.model), torch.inference_mode():
            output = self.model.network(input_ids=tokens.to(self.model.device), **named)
            self.cache = output.past_key_values
            return output.logits

    @contextlib.contextmanager
    def _stopping_between_layers(self, rows: int) -> Iterator[None]:
        """A prefill of a long prompt takes seconds: let `stop` interrupt it between layers."""
        if self.stop is None:
            yield
            return

        def check(_view: NeuronView) -> None:
            raise_if_stopped(self.stop)

        with contextlib.ExitStack() as stack:
            for layer in self.model.neuron_layers:
                stack.callback(layer.attach(check, rows).remove)
            yield


def _used_columns(mask: Tensor) -> int:
    """How many last columns of a (rows, columns) mask some row uses."""
    return mask.shape[1] - int(mask.any(0).int().argmax())


def _fitted(tensor: Tensor, length: int, dim: int) -> Tensor:
    """The last `length` slots along a dimension, with empty ones in front where there are fewer."""
    missing = length - tensor.shape[dim]
    if missing <= 0:
        return tensor.narrow(dim, -missing, length)
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


@contextlib.contextmanager
def head_reads_one_piece(model: LoadedModel) -> Iterator[None]:
    """Hand the LM head its last positions as one piece of memory while the block runs.

    They are cut out of all positions, and torch multiplies such a cut row by row, with a copy of the whole head for
    each: 32 copies of it took longer than everything else in a pass.
    """
    head = model.network.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()

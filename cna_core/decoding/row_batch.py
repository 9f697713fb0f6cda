"""Forward passes over a batch of rows: prefill, then one token per row, each row with its own steering.

This module knows caches, masks, positions and steering plans; it knows nothing about text, the choice of tokens, or
lanes. Prompts of different length are padded on the left, which is exact for every kind of attention, including sliding
windows. There are no hooks on the model between two passes, so a caller may stop at any point.
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
"""The most tokens of all rows together in one prefill pass; this limits the memory of a long prompt."""
LOGIT_TOKENS = 512
"""The same limit if every token's logits are kept, each of the vocabulary's size."""


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
        """Prefill the prompts, and return (rows, vocabulary) float32 logits of the next token.

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
        """Prefill the prompts in parts, and yield (first column, (rows, columns, vocabulary) logits), left-padded.

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
        """Forward passes over the prompts' columns from `columns` on, each with `part_tokens` tokens of all rows."""
        length = max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._mask = self._mask.to(self.model.device)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        # A model with a state can only start from nothing or go token by token, so its prompts need a single pass.
        step = max(1, part_tokens // len(prompts)) if shares_prefix(self.model) else length
        for start in range(columns, length, step):
            part = slice(start, start + step)
            mask = self._mask[:, : min(start + step, length)]
            with self._stopping_between_layers(len(prompts)):
                logits = self._pass(tokens[:, part], mask, positions[:, part], plan, keep)
            yield start, logits

    def step(self, tokens: Sequence[int], plan: SteeringPlan) -> Tensor:
        """Compute one token per row, and return (rows, vocabulary) float32 logits of the next token."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(self.rows, 1)], dim=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        return self._pass(torch.tensor(tokens)[:, None], self._mask, positions, plan)[:, -1].float()

    @property
    def can_join(self) -> bool:
        """Whether the rows have keys and values of every token and nothing else, so that they can be padded."""
        layers = getattr(self.cache, "layers", ())
        return bool(layers) and all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)

    def join(self, other: "RowBatch") -> None:
        """Append the rows of another batch of this model.

        The shorter rows get empty slots in front, as in ordinary left padding; columns that no row uses are removed.
        Both batches must satisfy `can_join`.
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
        """Keep these rows, in this order; a row may occur more than once."""
        index = torch.tensor(places, device=self._mask.device)
        self._mask = self._mask[index]
        self.cache.reorder_cache(index)

    def release(self) -> None:
        """Free the cache's memory."""
        self.cache = None

    def _pass(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, plan: SteeringPlan, keep: int | None = 1
    ) -> Tensor:
        """(rows, `keep`, vocabulary) logits of the last positions, or of all; some families return more positions."""
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
        """Let `stop` interrupt a prefill between layers, because a long prompt takes seconds."""
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
    """The number of last columns of a (rows, columns) mask that at least one row uses."""
    return mask.shape[1] - int(mask.any(0).int().argmax())


def _fitted(tensor: Tensor, length: int, dim: int) -> Tensor:
    """The last `length` slots along a dimension, with empty slots in front if there are fewer."""
    missing = length - tensor.shape[dim]
    if missing <= 0:
        return tensor.narrow(dim, -missing, length)
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


@contextlib.contextmanager
def head_reads_one_piece(model: LoadedModel) -> Iterator[None]:
    """Make the LM head's input contiguous while the block runs.

    The last positions are a slice of all positions, and torch multiplies such a slice row by row, each with a copy of
    the whole head: for 32 rows these copies took longer than everything else in a pass.
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

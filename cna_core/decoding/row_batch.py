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
from transformers.cache_utils import DynamicCache

from cna_core.circuits.capture import shares_prefix
from cna_core.interventions.plan import SteeringPlan
from cna_core.models.layers import NeuronView
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped

PASS_TOKENS = 4096
"""Tokens of all rows together in one pass of a prefill: bounds the memory of a long prompt."""


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
        length = max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._mask = self._mask.to(self.model.device)
        self.cache = cache
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        # A model that carries a state can only start from nothing or go token by token: its prompts are read at once.
        step = max(1, PASS_TOKENS // len(prompts)) if shares_prefix(self.model) else length
        logits = torch.empty(0)
        with self._stopping_between_layers(len(prompts)):
            for start in range(columns, length, step):
                part = slice(start, start + step)
                mask = self._mask[:, : min(start + step, length)]
                logits = self._pass(tokens[:, part], mask, positions[:, part], plan)
        return logits

    def step(self, tokens: Sequence[int], plan: SteeringPlan) -> Tensor:
        """Read one token a row; (rows, vocabulary) float32 logits of the next."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(self.rows, 1)], dim=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        return self._pass(torch.tensor(tokens)[:, None], self._mask, positions, plan)

    def select(self, places: Sequence[int]) -> None:
        """Make a batch of these rows, in this order; a row may be taken more than once."""
        index = torch.tensor(places, device=self._mask.device)
        self._mask = self._mask[index]
        self.cache.reorder_cache(index)

    def release(self) -> None:
        """Give the cache's memory back."""
        self.cache = None

    def _pass(self, tokens: Tensor, mask: Tensor, positions: Tensor, plan: SteeringPlan) -> Tensor:
        raise_if_stopped(self.stop)
        named: dict[str, Any] = {"attention_mask": mask, "past_key_values": self.cache, "use_cache": True}
        if "position_ids" in self._parameters:
            named["position_ids"] = positions
        if "logits_to_keep" in self._parameters:
            named["logits_to_keep"] = 1
        with plan.attached(), head_reads_one_piece(self.model), torch.inference_mode():
            output = self.model.network(input_ids=tokens.to(self.model.device), **named)
            self.cache = output.past_key_values
            return output.logits[:, -1].float()

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

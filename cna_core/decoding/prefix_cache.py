"""What the model has already read: KV caches of the first tokens of prompts, one for each way of steering.

A typed message changes only the end of its prompt; what stands before it (template, system prompt, earlier turns) is
read once for each multiplier and kept. Steering acts at every position, so a cache holds only for the steering it was
computed with, and another circuit finds nothing here. Not for models that carry a state instead of a cache.
"""

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from cna_core.circuits.capture import shares_prefix
from cna_core.decoding.row_batch import RowBatch
from cna_core.interventions.plan import SteeringPlan
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message, as_messages, encode, shared_prefix_length

KEPT_BYTES = 256 << 20


_Key = tuple[tuple[int, ...], bytes]
"""The tokens of a prefix, and `RowChange.key`."""


@dataclass(frozen=True)
class _Known:
    """One row's keys and values of some first tokens: for each layer two tensors (heads, tokens, size)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]

    @property
    def size_bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def after(self, dead: int, used: int) -> "_Known":
        """The first `used` tokens after `dead` empty slots."""
        if dead == 0 and used == self.tokens:
            return self
        return _Known(tuple((_shifted(keys, dead, used), _shifted(values, dead, used)) for keys, values in self.layers))


class PrefixCaches:
    """The prefixes one model has read; the least recently used leave first. Use it under the model's lock.

    Args:
        model: the model; a cache holds for no other.
        kept_bytes: how much is kept.
    """

    def __init__(self, model: LoadedModel, kept_bytes: int = KEPT_BYTES) -> None:
        self._model = weakref.ref(model)  # a model that is let go must not be kept in memory by what it once read
        self.kept_bytes = kept_bytes
        self._known: OrderedDict[_Key, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def size_bytes(self) -> int:
        return sum(known.size_bytes for known in self._known.values())

    def prefill(
        self, batch: RowBatch, prompts: Sequence[Sequence[int]], prefixes: Sequence[int], plan: SteeringPlan
    ) -> Tensor:
        """Like `batch.prefill`, but of each prompt's first `prefixes[row]` tokens only what is not known is read.

        Prefixes are read in passes of their own, without padding, so that the result is the same bits whether they were
        known or not. (Where a shorter one was known, as in a conversation that goes on, reading continues from it; then
        the last bits depend on where it ended.)

        Args:
            plan: one row of it for each prompt.
        """
        if self._model() is not batch.model:
            raise ValueError("these prefixes were read by another model")
        if not shares_prefix(batch.model):
            return batch.prefill(prompts, plan)
        keys: list[_Key] = [
            (tuple(prompt[:length]), row.key) for prompt, length, row in zip(prompts, prefixes, plan.rows, strict=True)
        ]
        missing = {key: place for place, key in enumerate(keys) if key[0] and key not in self._known}
        for some in self._alike(missing, batch.model.dtype):
            self._read(some, plan.select([missing[key] for key in some]), batch)
        for key in keys:
            if key in self._known:
                self._known.move_to_end(key)
        logits = _continued(batch, prompts, [self._known.get(key) for key in keys], plan)
        self._forget()
        return logits

    def _alike(self, keys: Iterable[_Key], dtype: torch.dtype) -> list[list[_Key]]:
        """Prefixes that can be read together without changing each other's last bits.

        Those of one length, continued from one length. In float32 none: there the bits depend on the number of rows,
        and batching saves nothing (docs/model_facts.md).
        """
        groups: dict[tuple[int, ...], list[_Key]] = defaultdict(list)
        for number, key in enumerate(keys):
            start = self._longest(*key)
            alone = number if dtype == torch.float32 else 0
            groups[len(key[0]), start.tokens if start else 0, alone].append(key)
        return list(groups.values())

    def _read(self, keys: Sequence[_Key], plan: SteeringPlan, batch: RowBatch) -> None:
        reader = RowBatch(batch.model, batch.stop)
        _continued(reader, [head for head, _ in keys], [self._longest(*key) for key in keys], plan)
        for row, key in enumerate(keys):
            if all(type(layer) is DynamicLayer and layer.is_initialized for layer in reader.cache.layers):
                self._known[key] = _Known(
                    tuple(
                        (layer.keys[row, :, -len(key[0]) :].clone(), layer.values[row, :, -len(key[0]) :].clone())
                        for layer in reader.cache.layers
                    )
                )

    def _longest(self, head: tuple[int, ...], steering: bytes) -> _Known | None:
        """The longest known prefix of `head` that leaves at least one token of it to read."""
        fitting = [
            known
            for (tokens, same), known in self._known.items()
            if same == steering and len(tokens) < len(head) and head[: len(tokens)] == tokens
        ]
        return max(fitting, key=lambda known: known.tokens, default=None)

    def _forget(self) -> None:
        size_bytes = self.size_bytes
        while size_bytes > self.kept_bytes:
            _, known = self._known.popitem(last=False)
            size_bytes -= known.size_bytes


def message_prefix(model: LoadedModel, messages: str | Sequence[Message], tokens: Sequence[int]) -> int:
    """How many first tokens of a formatted conversation do not depend on its last message.

    Args:
        tokens: `encode(model, messages)`.
    """
    conversation = as_messages(messages) if isinstance(messages, str) else list(messages)
    others = [[*conversation[:-1], {**conversation[-1], "content": text}] for text in ("0", "Z")]
    return shared_prefix_length([tokens, *(encode(model, other) for other in others)])


def _continued(
    batch: RowBatch, prompts: Sequence[Sequence[int]], known: Sequence[_Known | None], plan: SteeringPlan
) -> Tensor:
    """Prefill what is not known.

    The layout is that of ordinary left padding, as if all were read at once: the pass reads the last `width` columns
    of every row, the cache holds the columns before them, dead slots first. So it is exact for sliding windows, too.
    """
    lengths = [len(prompt) for prompt in prompts]
    width = max(length - (row.tokens if row else 0) for length, row in zip(lengths, known, strict=True))
    columns = max(lengths) - width
    pattern = next((row for row in known if row is not None), None)
    if columns == 0 or pattern is None:
        # Made without a configuration, a cache keeps every token of sliding-window layers, too: it can be cut anywhere.
        return batch.prefill(prompts, plan, DynamicCache())
    dead = [min(max(lengths) - length, columns) for length in lengths]
    rows = [(row or pattern).after(empty, columns - empty) for row, empty in zip(known, dead, strict=True)]
    return batch.prefill(prompts, plan, _joined(rows), columns)


def _joined(rows: Sequence[_Known]) -> DynamicCache:
    """One cache of these rows, which all have the same number of slots."""
    cache = DynamicCache()
    for index in range(len(rows[0].layers)):
        keys, values = (torch.stack([row.layers[index][part] for row in rows]) for part in (0, 1))
        cache.update(keys, values, index)
    return cache


def _shifted(tensor: Tensor, dead: int, used: int) -> Tensor:
    return torch.cat([tensor.new_zeros(tensor.shape[0], dead, tensor.shape[2]), tensor[:, :used]], dim=1)

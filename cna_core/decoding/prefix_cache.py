"""KV caches of the first tokens of prompts, one for each steering.

A new message changes only the end of the prompt. The part before it (template, system prompt, earlier turns) is
computed once for each steering and kept. Steering acts at every position, so a cache is valid only for the steering
with which it was computed. Models with a state instead of a cache cannot use this.
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
    """The keys and values of one row's first tokens: for each layer, two tensors (heads, tokens, size)."""

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
    """The cached prefixes of one model; the least recently used are removed first. Use it under the model's lock.

    Args:
        model: the model; its caches are not valid for others.
        kept_bytes: the size limit.
    """

    def __init__(self, model: LoadedModel, kept_bytes: int = KEPT_BYTES) -> None:
        self._model = weakref.ref(model)  # a cache must not keep an unloaded model in memory
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
        """Like `batch.prefill`, but the first `prefixes[row]` tokens of each prompt come from the cache if possible.

        Missing prefixes are computed in their own passes, without padding, so the result has the same bits with and
        without a cached prefix. (If only a shorter prefix is cached, as in a continued conversation, it is extended;
        then the last bits depend on where it ended.)

        Args:
            plan: the steering, one row for each prompt.
        """
        if self._model() is not batch.model:
            raise ValueError("these prefixes belong to another model")
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
        """Groups of prefixes that can be computed together without changing each other's last bits.

        A group has one length and one cached length. In float32 each prefix is alone, because the bits depend on the
        number of rows, and batching saves nothing (docs/model_facts.md).
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
        """The longest cached prefix of `head` that leaves at least one token to compute."""
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


def message_prefix(
    model: LoadedModel, messages: str | Sequence[Message], tokens: Sequence[int], thinking: bool | None = False
) -> int:
    """The number of first tokens of a formatted conversation that do not depend on its last message.

    Args:
        tokens: `encode(model, messages, thinking)`.
    """
    conversation = as_messages(messages) if isinstance(messages, str) else list(messages)
    others = [[*conversation[:-1], {**conversation[-1], "content": text}] for text in ("0", "Z")]
    return shared_prefix_length([tokens, *(encode(model, other, thinking) for other in others)])


def _continued(
    batch: RowBatch, prompts: Sequence[Sequence[int]], known: Sequence[_Known | None], plan: SteeringPlan
) -> Tensor:
    """Prefill the tokens that are not cached.

    The layout is that of ordinary left padding: the pass computes the last `width` columns of every row, and the cache
    has the columns before them, empty slots first. So it is also exact for sliding windows.
    """
    lengths = [len(prompt) for prompt in prompts]
    width = max(length - (row.tokens if row else 0) for length, row in zip(lengths, known, strict=True))
    columns = max(lengths) - width
    pattern = next((row for row in known if row is not None), None)
    if columns == 0 or pattern is None:
        # Without a configuration, a cache also keeps every token of sliding-window layers, so it can be cut anywhere.
        return batch.prefill(prompts, plan, DynamicCache())
    dead = [min(max(lengths) - length, columns) for length in lengths]
    rows = [(row or pattern).after(empty, columns - empty) for row, empty in zip(known, dead, strict=True)]
    return batch.prefill(prompts, plan, _joined(rows), columns)


def _joined(rows: Sequence[_Known]) -> DynamicCache:
    """One cache for these rows, which all have the same number of slots."""
    cache = DynamicCache()
    for index in range(len(rows[0].layers)):
        keys, values = (torch.stack([row.layers[index][part] for row in rows]) for part in (0, 1))
        cache.update(keys, values, index)
    return cache


def _shifted(tensor: Tensor, dead: int, used: int) -> Tensor:
    return torch.cat([tensor.new_zeros(tensor.shape[0], dead, tensor.shape[2]), tensor[:, :used]], dim=1)

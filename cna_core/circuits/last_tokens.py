"""Every neuron at the last token of each row of a batch, with what the rows begin with computed once.

The shared prefix runs as a batch of its own; its keys and values serve every batch. What is left of each row is padded
on the right, which is exact for every kind of attention (MODEL_FACTS.md: left padding is not), and read at its own last
token. The LM head never runs. Knows token ids; knows nothing about prompts, classes or statistics.
"""

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cna_core.errors import ModelError
from cna_core.models.layers import NeuronView, text_decoder
from cna_core.models.loaded import LoadedModel
from cna_core.progress import raise_if_stopped

_SHARED_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class Prefix:
    """What the shared prefix leaves behind: each layer's keys and values, (1, heads, length, size) each."""

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    def cache(self, rows: int) -> DynamicCache:
        """A cache for a batch of `rows` that starts after the prefix; it leaves the prefix as it is."""
        cache = DynamicCache()
        cache.layers = [_PrefixLayer(keys, values, rows) for keys, values in self.layers]
        return cache


class _PrefixLayer(DynamicLayer):
    """One layer of a prefix in a batch; what the batch adds is used and forgotten, as nothing is decoded after it."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.prefix = keys.expand(rows, *keys.shape[1:]), values.expand(rows, *values.shape[1:])  # views, no copies
        self.keys, self.values = self.prefix

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        keys, values = self.prefix
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def shares_prefix(model: LoadedModel) -> bool:
    """Whether all that a prefix leaves behind is keys and values, one pair a layer.

    Not so with recurrent or convolutional layers (Mamba, Qwen3.5, LFM2) and layers that read others' keys (Gemma 3n).
    """
    config = model.network.config.get_text_config(decoder=True)
    layer_types = {*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())}
    stateful = getattr(model.network, "_is_stateful", False) or getattr(config, "num_kv_shared_layers", 0)
    return layer_types <= _SHARED_LAYER_TYPES and not stateful


def last_token_neurons(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    prefix: Prefix | None = None,
    stop: threading.Event | None = None,
) -> Tensor:
    """(rows, total neurons) in the model's dtype, on the first layer's device: every neuron at each row's last token.

    Args:
        rows: token ids, without those of the prefix; their lengths may differ.
        prefix: keys and values of the tokens before them.
        stop: checked between layers.
    """
    # bfloat16 uses other kernels for a single row than for two or more (MODEL_FACTS.md): compare only at two or more.
    padded = [*rows, rows[0]] if len(rows) == 1 else list(rows)
    last = torch.tensor([len(row) - 1 for row in padded])
    recorded: list[Tensor | None] = [None] * len(model.neuron_layers)
    with recording(model, last, recorded, stop):
        _run(model, padded, prefix)
    missing = [index for index, part in enumerate(recorded) if part is None]
    if missing:
        raise ModelError(f"The neurons of layer {missing[0]} of {model.name} did not show up in its forward pass.")
    parts = [part[: len(rows)] for part in recorded if part is not None]
    return torch.cat([part.to(parts[0].device) for part in parts], dim=1)


@contextmanager
def recording(
    model: LoadedModel, positions: Tensor, recorded: list[Tensor | None], stop: threading.Event | None = None
) -> Iterator[None]:
    """While this is open, a forward pass puts layer ℓ's neurons (rows, width) at `positions` into `recorded[ℓ]`.

    The slots must be None before each pass: parts of a layer are added up in them.
    """

    def note(index: int) -> Callable[[NeuronView], None]:
        def visit(view: NeuronView) -> None:
            raise_if_stopped(stop)
            part, before = view.at(positions), recorded[index]
            recorded[index] = part if before is None else before + part

        return visit

    handles = []
    try:
        for place, layer in enumerate(model.neuron_layers):
            handles.append(layer.attach(note(place), rows=len(positions)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_prefix(model: LoadedModel, tokens: Sequence[int]) -> Prefix:
    """The keys and values of tokens that every row begins with; none for no tokens."""
    if not tokens:
        return Prefix(0, ())
    cache = DynamicCache()
    rows = 1 if len(tokens) > 1 else 2  # a lone token in a lone row would take bfloat16's other kernels
    _call(model, {"input_ids": torch.tensor([list(tokens)] * rows), "past_key_values": cache, "use_cache": True})
    layers = [(layer.keys, layer.values) for layer in cache.layers if isinstance(layer, DynamicLayer)]
    kept = tuple((keys[:1], values[:1]) for keys, values in layers if keys is not None and values is not None)
    if not kept or any(keys.shape[-2] != len(tokens) for keys, _ in kept):
        raise ModelError(f"{model.name} keeps a state that prompts cannot share; its family is not supported yet.")
    return Prefix(len(tokens), kept)


def _run(model: LoadedModel, rows: Sequence[Sequence[int]], prefix: Prefix | None) -> None:
    width = max(len(row) for row in rows)
    padding = model.tokenizer.pad_token_id or 0
    input_ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    before = prefix.length if prefix else 0
    mask = torch.arange(before + width) < before + lengths[:, None]
    inputs: dict[str, object] = {
        "input_ids": input_ids,
        "attention_mask": mask.long(),
        "position_ids": torch.arange(before, before + width).expand(len(rows), -1),
        "use_cache": before > 0,
    }
    if prefix and before:
        inputs["past_key_values"] = prefix.cache(len(rows))
    _call(model, inputs)


def _call(model: LoadedModel, inputs: dict[str, object]) -> None:
    decoder = text_decoder(model.network)
    accepted = inspect.signature(decoder.forward).parameters
    given = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
        if name != "position_ids" or name in accepted
    }
    decoder(**given)

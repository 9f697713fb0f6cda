"""Every neuron at the last token of each row of a batch, with what the rows begin with computed once.

Rows go through as one tree of tokens where the model can read one (token_tree.py): the first tree brings along the
keys and values of the prefix that all rows share, and they serve every later one. Elsewhere the prefix runs alone, and
what is left of the rows is padded on the right, which is exact for every kind of attention (MODEL_FACTS.md: left
padding is not), and read at its own last token. The LM head never runs. Knows token ids; knows nothing about prompts,
classes or statistics.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cna_core.circuits.token_tree import TokenTree
from cna_core.circuits.tree_attention import attention_by_blocks
from cna_core.errors import ModelError
from cna_core.models.layers import DenseLayer, NeuronView, Removable, text_decoder
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


def reads_trees(model: LoadedModel, longest: int) -> bool:
    """Whether the model computes a tree of rows of at most `longest` tokens (prefix included) as it does the rows.

    It must take positions and a mask from outside, and look at nothing but keys and values: not so with ALiBi, which
    derives distances from the order of the tokens, nor where a window or chunk of attention is shorter than the rows.
    """
    config = model.network.config.get_text_config(decoder=True)
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return (
        shares_prefix(model)
        and "position_ids" in inspect.signature(text_decoder(model.network).forward).parameters
        and config._attn_implementation in ("sdpa", "eager")
        and not getattr(config, "alibi", False)
        and all(longest <= window for window in windows if window)
    )


def last_token_neurons(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    prefix: Prefix | None = None,
    stop: threading.Event | None = None,
    as_tree: bool = False,
) -> Tensor:
    """(rows, total neurons) in the model's dtype, on the first layer's device: every neuron at each row's last token.

    Args:
        rows: token ids, without those of the prefix; their lengths may differ.
        prefix: keys and values of the tokens before them.
        stop: checked between layers.
        as_tree: compute what several rows begin with once; only where `reads_trees`.
    """
    tree = TokenTree.of(rows) if as_tree else None
    if tree is not None and len(tree) > 1:  # a lone token in a lone row would take bfloat16's other kernels
        return _of_tree(model, tree, _after(prefix, 1), prefix.length if prefix else 0, stop)
    # bfloat16 uses other kernels for a single row than for two or more (MODEL_FACTS.md): compare only at two or more.
    padded = [*rows, rows[0]] if len(rows) == 1 else list(rows)
    last = torch.tensor([len(row) - 1 for row in padded])
    return _recorded(model, _padded_inputs(model, padded, prefix), last, len(padded), stop)[: len(rows)]


def first_tree(
    model: LoadedModel, rows: Sequence[Sequence[int]], shared: int, stop: threading.Event | None = None
) -> tuple[Tensor, Prefix]:
    """As `last_token_neurons` of whole rows as a tree; and the prefix, for the rows that come after.

    Args:
        rows: token ids; their first `shared` are the same in all.
    """
    cache = DynamicCache()
    tree = TokenTree.of(rows)  # begins with the shared tokens, in order
    neurons = _of_tree(model, tree, {"use_cache": True, "past_key_values": cache}, 0, stop)
    return neurons, _prefix_in(model, cache, shared, len(tree))


def _of_tree(
    model: LoadedModel, tree: TokenTree, caching: dict[str, object], before: int, stop: threading.Event | None
) -> Tensor:
    """(rows of the tree, total neurons), `before` tokens being in the cache already."""
    inputs = {
        "input_ids": tree.tokens[None],
        "attention_mask": tree.mask(before, model.network.dtype),
        "position_ids": before + tree.depths[None],
        **caching,
    }
    with attention_by_blocks(model.network):
        return _recorded(model, inputs, tree.ends, 1, stop)


def _recorded(
    model: LoadedModel, inputs: dict[str, object], positions: Tensor, rows: int, stop: threading.Event | None
) -> Tensor:
    """(positions, total neurons): what one forward pass of `rows` rows shows."""
    recorded: list[Tensor | None] = [None] * len(model.neuron_layers)
    with contextlib.suppress(_Enough), recording(model, positions, recorded, stop, rows, ends_pass=rows == 1):
        _call(model, inputs)
    missing = [index for index, part in enumerate(recorded) if part is None]
    if missing:
        raise ModelError(f"The neurons of layer {missing[0]} of {model.name} did not show up in its forward pass.")
    parts = [part for part in recorded if part is not None]
    return torch.cat([part.to(parts[0].device) for part in parts], dim=1)


class _Enough(Exception):  # noqa: N818  # no error: all that was asked for has been seen
    """Ends a forward pass once the last layer's neurons are there."""


@contextmanager
def recording(
    model: LoadedModel,
    positions: Tensor,
    recorded: list[Tensor | None],
    stop: threading.Event | None = None,
    rows: int | None = None,
    ends_pass: bool = False,
) -> Iterator[None]:
    """While this is open, a forward pass puts layer ℓ's neurons (positions, width) into `recorded[ℓ]`.

    The slots must be None before each pass: parts of a layer are added up in them.

    Args:
        positions: one token of each row, or several of a lone one.
        rows: how many the pass has; as many as positions if not given.
        ends_pass: compute of a dense last layer no more than its neurons at the positions of a lone row, then end the
            pass by `_Enough`.
    """

    def note(index: int) -> Callable[[NeuronView], None]:
        def visit(view: NeuronView) -> None:
            raise_if_stopped(stop)
            part, before = view.at(positions), recorded[index]
            recorded[index] = part if before is None else before + part

        return visit

    def note_and_end(view: NeuronView) -> None:
        recorded[-1] = view.at(torch.arange(len(positions)))
        raise _Enough

    handles: list[Removable] = []
    cut = _last_to_cut(model) if ends_pass and len(positions) > 1 else None  # a lone one would take other kernels
    try:
        for place, layer in enumerate(model.neuron_layers):
            if cut is not None and layer is cut:
                handles += [cut.only_at(positions), cut.attach(note_and_end, rows=1)]
            else:
                handles.append(layer.attach(note(place), rows=rows or len(positions)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_to_cut(model: LoadedModel) -> DenseLayer | None:
    """The last layer, where a pass may end in it: not where accelerate moves weights about as a pass comes by."""
    last = model.neuron_layers[-1]
    moved = hasattr(model.network, "hf_device_map")
    return last if isinstance(last, DenseLayer) and last.up_projections and not moved else None


def run_prefix(model: LoadedModel, tokens: Sequence[int]) -> Prefix:
    """The keys and values of tokens that every row begins with; none for no tokens."""
    if not tokens:
        return Prefix(0, ())
    cache = DynamicCache()
    rows = 1 if len(tokens) > 1 else 2  # a lone token in a lone row would take bfloat16's other kernels
    _call(model, {"input_ids": torch.tensor([list(tokens)] * rows), "past_key_values": cache, "use_cache": True})
    return _prefix_in(model, cache, len(tokens), len(tokens))


def _prefix_in(model: LoadedModel, cache: DynamicCache, length: int, read: int) -> Prefix:
    """The first `length` tokens' keys and values in the cache of a pass of `read` tokens, copied out of it."""
    layers = [(layer.keys, layer.values) for layer in cache.layers if isinstance(layer, DynamicLayer)]
    known = [(keys, values) for keys, values in layers if keys is not None and values is not None]
    if not known or any(keys.shape[-2] != read for keys, _ in known):
        raise ModelError(f"{model.name} keeps a state that prompts cannot share; its family is not supported yet.")
    kept = tuple((keys[:1, :, :length].clone(), values[:1, :, :length].clone()) for keys, values in known)
    return Prefix(length, kept)


def _padded_inputs(model: LoadedModel, rows: Sequence[Sequence[int]], prefix: Prefix | None) -> dict[str, object]:
    width = max(len(row) for row in rows)
    padding = model.tokenizer.pad_token_id or 0
    lengths = torch.tensor([len(row) for row in rows])
    before = prefix.length if prefix else 0
    mask = torch.arange(before + width) < before + lengths[:, None]
    return {
        "input_ids": torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows]),
        "attention_mask": mask.long(),
        "position_ids": torch.arange(before, before + width).expand(len(rows), -1),
        **_after(prefix, len(rows)),
    }


def _after(prefix: Prefix | None, rows: int) -> dict[str, object]:
    if not prefix or not prefix.length:
        return {"use_cache": False}
    return {"use_cache": True, "past_key_values": prefix.cache(rows)}


def _call(model: LoadedModel, inputs: dict[str, object]) -> None:
    decoder = text_decoder(model.network)
    accepted = inspect.signature(decoder.forward).parameters
    given = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
        if name != "position_ids" or name in accepted
    }
    decoder(**given)

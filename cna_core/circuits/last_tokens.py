"""Read neurons and residual stream at the last token of each row of a batch, computing common beginnings once.

The tokens that all rows share run first, in a pass of their own, which gives keys and values (prefix.py). The rest of
the rows runs as one tree of tokens if the model supports it (token_tree.py). Otherwise it is padded on the right, and
each row is read at its own last token. That is exact for every kind of attention, while empty positions from padding on
the left would count in a sliding window. The LM head never runs.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cna_core.circuits.prefix import Prefix
from cna_core.circuits.token_tree import TokenTree
from cna_core.errors import ModelError
from cna_core.models.layers import DenseLayer, NeuronView, Removable, decoder_layers, text_decoder
from cna_core.models.loaded import LoadedModel
from cna_core.models.residual_stream import at_positions, layer_input_hook, mlp_output_module, output_hook
from cna_core.progress import raise_if_stopped

_SHARED_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


def shares_prefix(model: LoadedModel) -> bool:
    """Whether the state after a prefix is only keys and values, one pair for each layer.

    This is not so with recurrent or convolutional layers (Mamba, Qwen3.5, LFM2) and layers that read the keys of others
    (Gemma 3n).
    """
    config = model.network.config.get_text_config(decoder=True)
    layer_types = {*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())}
    stateful = getattr(model.network, "_is_stateful", False) or getattr(config, "num_kv_shared_layers", 0)
    return layer_types <= _SHARED_LAYER_TYPES and not stateful


def reads_trees(model: LoadedModel, longest: int) -> bool:
    """Whether the model computes a tree of rows of at most `longest` tokens (with prefix) exactly as the rows.

    It must accept positions and a mask, and use only keys and values. That excludes ALiBi, which derives distances from
    the order of the tokens, and attention windows or chunks that are shorter than the rows.
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
    """(rows, values) in the model's dtype, on the first layer's device, recorded at each row's last token.

    The values are every neuron, then every layer's input, then every layer's MLP output (layers · hidden of each).

    Args:
        rows: token ids, without those of the prefix; their lengths may differ.
        prefix: keys and values of the tokens before them.
        stop: checked between layers.
        as_tree: compute common beginnings once; only if `reads_trees`.
    """
    tree = TokenTree.of(rows) if as_tree else None
    if tree is not None and len(tree) > 1:  # a single token in a single row would use bfloat16's other kernels
        return _of_tree(model, tree, prefix, stop)
    # bfloat16 uses other kernels for a single row than for two or more, which round differently.
    padded = [*rows, rows[0]] if len(rows) == 1 else list(rows)
    last = torch.tensor([len(row) - 1 for row in padded])
    return _recorded(model, _padded_inputs(model, padded, prefix), last, len(padded), stop)[: len(rows)]


def _of_tree(model: LoadedModel, tree: TokenTree, prefix: Prefix | None, stop: threading.Event | None) -> Tensor:
    """(rows of the tree, total neurons)."""
    before = prefix.length if prefix else 0
    inputs = {
        "input_ids": tree.tokens[None],
        "attention_mask": tree.mask(before, model.network.dtype),
        "position_ids": before + tree.depths[None],
        **_after(prefix, 1),
    }
    return _recorded(model, inputs, tree.ends, 1, stop)


def _recorded(
    model: LoadedModel, inputs: dict[str, object], positions: Tensor, rows: int, stop: threading.Event | None
) -> Tensor:
    """(positions, values) from one forward pass of `rows` rows."""
    layers = len(model.neuron_layers)
    recorded: list[Tensor | None] = [None] * (3 * layers)
    with contextlib.suppress(_Enough), recording(model, positions, recorded, stop, rows, ends_pass=rows == 1):
        _call(model, inputs)
    missing = [index for index, part in enumerate(recorded) if part is None]
    if missing:
        raise ModelError(
            f"The family of {model.name} is not supported: layer {missing[0] % layers} did not run in its forward pass."
        )
    parts = [part for part in recorded if part is not None]
    return torch.cat([part.to(parts[0].device) for part in parts], dim=1)


class _Enough(Exception):  # noqa: N818  # not an error: everything needed has been recorded
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
    """A context in which a forward pass stores its values at the positions in `recorded`.

    The first third of the slots gets each layer's neurons (positions, width), the second each layer's input, and the
    last each layer's MLP output (positions, hidden). The slots must be None before each pass, because the parts of a
    layer's neurons are summed in them.

    Args:
        positions: one token of each row, or several of a single row.
        rows: the number of rows of the pass; the number of positions if not given.
        ends_pass: of a dense last layer, compute only its MLP at the positions of a single row, then end the pass with
            `_Enough`.
    """

    layers, count = decoder_layers(model.network), len(model.neuron_layers)
    batch = rows or len(positions)
    everything = torch.arange(len(positions))

    def note(index: int, places: Tensor) -> Callable[[NeuronView], None]:
        def visit(view: NeuronView) -> None:
            raise_if_stopped(stop)
            part, before = view.at(places), recorded[index]
            recorded[index] = part if before is None else before + part

        return visit

    def note_hidden(slot: int, places: Tensor, last: bool = False) -> Callable[[Tensor], None]:
        def visit(hidden: Tensor) -> None:
            recorded[slot] = at_positions(hidden, batch, places)
            if last:
                raise _Enough

        return visit

    handles: list[Removable] = []
    cut = _last_to_cut(model) if ends_pass and len(positions) > 1 else None  # a single one would use other kernels
    try:
        for place, (layer, neurons) in enumerate(zip(layers, model.neuron_layers, strict=True)):
            ends = cut is not None and neurons is cut
            places = everything if ends else positions
            if ends and cut is not None:
                handles.append(cut.only_at(positions))
            handles.append(layer_input_hook(layer, note_hidden(count + place, positions)))
            handles.append(neurons.attach(note(place, places), rows=batch))
            writer = mlp_output_module(layer, neurons)
            handles.append(output_hook(writer, note_hidden(2 * count + place, places, last=ends)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_to_cut(model: LoadedModel) -> DenseLayer | None:
    """The last layer, if a pass may end in it; None if accelerate moves weights during a pass."""
    last = model.neuron_layers[-1]
    moved = hasattr(model.network, "hf_device_map")
    return last if isinstance(last, DenseLayer) and last.up_projections and not moved else None


def run_prefix(model: LoadedModel, tokens: Sequence[int], stop: threading.Event | None = None) -> Prefix:
    """The keys and values of the tokens that every row begins with.

    Args:
        tokens: token ids.
        stop: checked between layers.

    Raises:
        ModelError: a layer has another state than keys and values.
    """
    if not tokens:
        return Prefix()
    rows = 1 if len(tokens) > 1 else 2  # a single token in a single row would use bfloat16's other kernels
    cache = DynamicCache()
    inputs = {"input_ids": torch.tensor([list(tokens)] * rows), "use_cache": True, "past_key_values": cache}
    _recorded(model, inputs, torch.full((rows,), len(tokens) - 1), rows, stop)
    layers: list[Any] = cache.layers  # of a kind that has keys and values, where the check passes
    if [layer.get_seq_length() for layer in layers] != [len(tokens)] * len(decoder_layers(model.network)):
        raise ModelError(f"The family of {model.name} is not supported: its prompts cannot share a prefix.")
    return Prefix(len(tokens), tuple((layer.keys[:1], layer.values[:1]) for layer in layers))


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

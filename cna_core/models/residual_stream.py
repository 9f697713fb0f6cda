"""The residual stream of a loaded model: what is read at its layers' inputs, and where it is written to.

A decoder layer adds what its attention and its MLP give to its input. Which modules' outputs these are is found by
looking, as families put norms, scales and parallel branches differently: a short pass shows the output of every module
in a layer, and the writes are those whose sum (each perhaps times a constant) is what the layer added. Knows nothing
about prompts or methods.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from cna_core.errors import ModelError
from cna_core.models.experts import MixtureLayer
from cna_core.models.layers import decoder_layers
from cna_core.models.neurons import DenseLayer, NeuronLayer

_PROBE_TOKENS = 6
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH_TOLERANCE = 0.25  # of 16-bit numbers: what a layer adds is a small difference of large, rounded ones
"""How much of what a layer adds the writes may leave unexplained."""

Edit = Callable[[Tensor], Tensor]
"""Gets hidden states (rows · tokens or rows, tokens; hidden) and gives back what takes their place."""


@dataclass(frozen=True)
class ResidualWrites:
    """Every module whose output is added to the residual stream.

    Args:
        layers: the decoder's layers; the first one's input is the embedding's write.
        writers: all others, layer by layer.
    """

    layers: tuple[nn.Module, ...]
    writers: tuple[nn.Module, ...]

    @contextlib.contextmanager
    def edited(self, embedding: Edit, others: Edit) -> Iterator[None]:
        """Pass every write through an edit while the block runs: the embedding's through one of its own."""
        with contextlib.ExitStack() as stack:
            stack.callback(_edit_input(self.layers[0], embedding).remove)
            for module in self.writers:
                stack.callback(edit_output(module, others).remove)
            yield


def find_residual_writes(network: PreTrainedModel, device: torch.device) -> ResidualWrites:
    """Find them by one pass over a few tokens.

    Raises:
        ModelError: what a layer adds is not the sum of a few modules' outputs, so that writes cannot be told.
    """
    layers = decoder_layers(network)
    seen: list[dict[nn.Module, Tensor]] = [{} for _ in layers]
    ends: list[list[Tensor]] = [[] for _ in layers]
    with contextlib.ExitStack() as stack:
        for place, layer in enumerate(layers):
            stack.callback(layer_input_hook(layer, ends[place].append).remove)
            for module in layer.modules():
                if module is not layer:
                    stack.callback(output_hook(module, functools.partial(_keep, seen[place], module)).remove)
            stack.callback(output_hook(layer, ends[place].append).remove)
        tokens = torch.arange(1, 1 + _PROBE_TOKENS).remainder(network.config.get_text_config(decoder=True).vocab_size)
        with torch.inference_mode():
            network(input_ids=tokens[None].to(device), use_cache=False)
    writers: list[nn.Module] = []
    for place, (before, after) in enumerate(ends):
        found = _writers_of(seen[place], before, after)
        if not found:
            raise ModelError(
                f"Where layer {place} of this {network.config.model_type} model writes to the residual stream was not "
                "found, so directions cannot be ablated in it; choose a method on neurons."
            )
        writers += found
    return ResidualWrites(layers, tuple(writers))


def layer_input_hook(layer: nn.Module, note: Callable[[Tensor], object]) -> RemovableHandle:
    """Call `note` with a decoder layer's input, (rows, tokens, hidden), in every pass until the handle is removed."""

    def before_layer(_module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        note(_hidden_states(inputs, named))

    return layer.register_forward_pre_hook(before_layer, with_kwargs=True)


def output_hook(module: nn.Module, note: Callable[[Tensor], object]) -> RemovableHandle:
    """Call `note` with a module's output, or the first part of it, in every pass until the handle is removed."""

    def after_module(_module: nn.Module, _inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.is_floating_point():
            note(first)

    return module.register_forward_hook(after_module)


def mlp_output_module(layer: nn.Module, neurons: NeuronLayer) -> nn.Module:
    """The module whose output is the MLP's: the down projection, or with routed experts the block that they are in.

    Raises:
        ModelError: the experts' block was not found in the layer.
    """
    if isinstance(neurons, DenseLayer):
        return neurons.down_projection
    if isinstance(neurons, MixtureLayer):
        for child in layer.children():
            if any(module is neurons.routed.experts for module in child.modules()):
                return child
    raise ModelError(f"The MLP of layer {neurons.index} was not found; choose a method on neurons.")


def edit_output(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Pass a module's output, or the first part of it, through an edit until the handle is removed."""

    def after_module(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return module.register_forward_hook(after_module)


def _edit_input(layer: nn.Module, edit: Edit) -> RemovableHandle:
    def before_layer(
        _module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        hidden = edit(_hidden_states(inputs, named))
        if inputs:
            return (hidden, *inputs[1:]), named
        return inputs, {**named, "hidden_states": hidden}

    return layer.register_forward_pre_hook(before_layer, with_kwargs=True)


def _hidden_states(inputs: tuple[object, ...], named: dict[str, object]) -> Tensor:
    hidden = inputs[0] if inputs else named.get("hidden_states")
    if not isinstance(hidden, Tensor):
        raise ModelError("A decoder layer of this model is not given hidden states first; its family is not supported.")
    return hidden


def _keep(seen: dict[nn.Module, Tensor], module: nn.Module, output: Tensor) -> None:
    seen.setdefault(module, output.clone())  # some families add to it in place afterwards


def _writers_of(seen: dict[nn.Module, Tensor], before: Tensor, after: Tensor) -> list[nn.Module]:
    """The modules whose outputs, each times a constant, are what the layer added; empty where none are."""
    before = before.to(after.device).double()
    # Every number counts by how precisely it is known: a few tokens have a residual stream a thousand times as large as
    # the others', and its rounding would drown them.
    weights = 1 / (before.abs() + after.double().abs()).clamp(min=1e-6)
    added = ((after.double() - before) * weights).flatten()
    # Hooks see inner modules first; of equal outputs the outermost counts.
    modules = [module for module, output in seen.items() if _is_like(output, after) and bool(output.any())][::-1]
    outputs = [(seen[module].to(after.device).double().reshape(after.shape) * weights).flatten() for module in modules]
    table = torch.stack([*outputs, added])
    products = (table @ table.T).cpu()
    tolerance = _TOLERANCE.get(after.dtype, _ROUGH_TOLERANCE)
    for count in (2, 1, 3):  # 3: routed and shared experts beside attention
        places = itertools.combinations(range(len(outputs)), count)
        errors = {chosen: _unexplained(products, list(chosen)) for chosen in places}
        best = min(errors.values(), default=1.0)
        if best < tolerance:
            chosen = next(chosen for chosen, error in errors.items() if error <= max(2 * best, 1e-6))
            return [modules[place] for place in chosen]
    return []


def _is_like(output: Tensor, after: Tensor) -> bool:
    return output.numel() == after.numel() and output.shape[-1] == after.shape[-1]


def _unexplained(products: Tensor, chosen: list[int]) -> float:
    """The share of the last vector's length that no combination of the chosen ones gives, from all scalar products."""
    own, shared = products[chosen][:, chosen], products[chosen, -1]
    factors = torch.linalg.lstsq(own, shared[:, None]).solution[:, 0]
    left = products[-1, -1] - 2 * factors @ shared + factors @ own @ factors
    return float((left.clamp(min=0) / products[-1, -1].clamp(min=1e-300)).sqrt())


def at_positions(hidden: Tensor, rows: int, positions: Tensor) -> Tensor:
    """(positions, hidden): row r's hidden states at token `positions[r]`, or several of a lone row.

    Args:
        hidden: (rows, tokens, hidden), or flattened over rows and tokens.
        positions: (n,) int64; one for each row, or any of a lone one.
    """
    by_row = hidden.reshape(rows, -1, hidden.shape[-1])
    positions = positions.to(hidden.device)
    if rows == 1:
        return by_row[0, positions]
    return by_row[torch.arange(rows, device=hidden.device), positions]

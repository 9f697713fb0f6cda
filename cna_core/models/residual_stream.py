"""The residual stream of a loaded model: reading it at the layers' inputs, and finding the modules that write to it.

A decoder layer adds the outputs of its attention and its MLP to its input. Model families place norms, scales and
parallel branches differently, so the writing modules are found by observation: a short forward pass records the output
of every module in a layer. The writers are those whose sum (each possibly times a constant) is what the layer added.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cna_core.errors import ModelError
from cna_core.models.experts import MixtureLayer
from cna_core.models.layers import decoder_layers
from cna_core.models.neurons import DenseLayer, NeuronLayer

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedModel

_PROBE_TOKENS = 6
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH_TOLERANCE = 0.25  # for 16-bit formats: what a layer adds is a small difference of large, rounded numbers
"""The share of a layer's addition that the writers may leave unexplained."""

Edit = Callable[[Tensor], Tensor]
"""A function from hidden states (rows · tokens or rows, tokens; hidden) to those that replace them."""


@dataclass(frozen=True)
class ResidualWrites:
    """Every module whose output is added to the residual stream.

    Args:
        layers: the decoder's layers; the input of the first layer is the embedding's write.
        writers: all other writing modules, layer by layer.
    """

    layers: tuple[nn.Module, ...]
    writers: tuple[nn.Module, ...]

    @contextlib.contextmanager
    def edited(self, embedding: Edit, others: Edit) -> Iterator[None]:
        """Pass every write through the edit `others`, and the embedding's write through `embedding`, in the block."""
        with contextlib.ExitStack() as stack:
            stack.callback(_edit_input(self.layers[0], embedding).remove)
            for module in self.writers:
                stack.callback(edit_output(module, others).remove)
            yield


def find_residual_writes(network: "PreTrainedModel", device: torch.device) -> ResidualWrites:
    """Find the writing modules by one forward pass over a few tokens.

    Raises:
        ModelError: what a layer adds is not the sum of a few modules' outputs.
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
                f"The modules that write to the residual stream in layer {place} of this {network.config.model_type} "
                "model were not found, so directions cannot be ablated: choose a method on neurons."
            )
        writers += found
    return ResidualWrites(layers, tuple(writers))


def layer_input_hook(layer: nn.Module, note: Callable[[Tensor], object]) -> RemovableHandle:
    """Call `note` with a decoder layer's input (rows, tokens, hidden) in every pass until the handle is removed."""

    def before_layer(_module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        note(_hidden_states(inputs, named))

    return layer.register_forward_pre_hook(before_layer, with_kwargs=True)


def output_hook(module: nn.Module, note: Callable[[Tensor], object]) -> RemovableHandle:
    """Call `note` with a module's output, or its first element, in every pass until the handle is removed."""

    def after_module(_module: nn.Module, _inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.is_floating_point():
            note(first)

    return module.register_forward_hook(after_module)


def mlp_output_module(layer: nn.Module, neurons: NeuronLayer) -> nn.Module:
    """The module whose output is the MLP's output: the down projection, or the block that holds the routed experts.

    Raises:
        ModelError: the experts' block was not found in the layer.
    """
    if isinstance(neurons, DenseLayer):
        return neurons.down_projection
    if isinstance(neurons, MixtureLayer):
        for child in layer.children():
            if any(module is neurons.routed.experts for module in child.modules()):
                return child
    raise ModelError(f"The MLP of layer {neurons.index} was not found: choose a method on neurons.")


def edit_output(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Pass a module's output, or its first element, through an edit until the handle is removed."""

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
        raise ModelError("This model family is not supported: hidden states are not a decoder layer's first input.")
    return hidden


def _keep(seen: dict[nn.Module, Tensor], module: nn.Module, output: Tensor) -> None:
    seen.setdefault(module, output.clone())  # some families add to it in place afterwards


def _writers_of(seen: dict[nn.Module, Tensor], before: Tensor, after: Tensor) -> list[nn.Module]:
    """The modules whose outputs, each times a constant, add up to what the layer added; empty if there are none."""
    before = before.to(after.device).double()
    # Weight every number by its precision: the residual stream of a few tokens is a thousand times as large as that of
    # the others, and its rounding errors would dominate.
    weights = 1 / (before.abs() + after.double().abs()).clamp(min=1e-6)
    added = ((after.double() - before) * weights).flatten()
    # Hooks run for inner modules first; of equal outputs, take the outermost module.
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
    """The share of the last vector's length that no linear combination of the chosen vectors explains."""
    own, shared = products[chosen][:, chosen], products[chosen, -1]
    factors = torch.linalg.lstsq(own, shared[:, None]).solution[:, 0]
    left = products[-1, -1] - 2 * factors @ shared + factors @ own @ factors
    return float((left.clamp(min=0) / products[-1, -1].clamp(min=1e-300)).sqrt())


def at_positions(hidden: Tensor, rows: int, positions: Tensor) -> Tensor:
    """(positions, hidden): row r's hidden states at token `positions[r]`, or several positions of a single row.

    Args:
        hidden: (rows, tokens, hidden), or flattened over rows and tokens.
        rows: the number of rows.
        positions: (n,) int64: one for each row, or any number for a single row.
    """
    by_row = hidden.reshape(rows, -1, hidden.shape[-1])
    positions = positions.to(hidden.device)
    if rows == 1:
        return by_row[0, positions]
    return by_row[torch.arange(rows, device=hidden.device), positions]

"""Find a model's neurons: the MLP of every layer, by its structure and not by the names of a model family.

In each decoder layer, the down projection is the Linear (or Conv1D) whose output is as wide as the hidden state and
that has a sibling from the hidden state to its own input width, or to twice that (fused gate and up projections).
Attention is excluded by name, because its projections can have the same shapes.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from cna_core.errors import ModelError
from cna_core.models.experts import MixtureLayer, RoutedExperts
from cna_core.models.neurons import DenseLayer, DenseView, NeuronLayer, NeuronView, Removable, Visit

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedModel

__all__ = [
    "DenseLayer",
    "DenseView",
    "MixtureLayer",
    "NeuronLayer",
    "NeuronView",
    "Removable",
    "Visit",
    "decoder_layers",
    "find_neuron_layers",
    "text_decoder",
]

_log = logging.getLogger(__name__)
_OTHER_TOWERS = ("vision", "visual", "image", "audio", "speech", "encoder")
_NO_MLP = ("attn", "attention", "router", "gate")
"""Words in the names of modules that do not belong to an MLP: attention, routing, gates."""


def text_decoder(network: "PreTrainedModel") -> nn.Module:
    """The module from token ids to final hidden states, without LM head and without vision or audio towers."""
    decoder = network.get_decoder()
    return decoder if isinstance(decoder, nn.Module) else network.base_model


def decoder_layers(network: "PreTrainedModel") -> tuple[nn.Module, ...]:
    """The text decoder's layers, first layer first.

    Raises:
        ModelError: there is no list with as many layers as the configuration says.
    """
    config = network.config.get_text_config(decoder=True)
    count = getattr(config, "num_hidden_layers", 0)
    for place in (text_decoder(network), network):
        for name, module in place.named_modules():
            elsewhere = any(tower in part for part in name.split(".") for tower in _OTHER_TOWERS)
            if isinstance(module, nn.ModuleList) and len(module) == count and not elsewhere:
                return tuple(module)
    raise ModelError(f"No decoder layers were found in this {_family(network)} model: choose a decoder model.")


def find_neuron_layers(network: "PreTrainedModel") -> tuple[NeuronLayer, ...]:
    """Every layer's neurons, first layer first. Weights are not read, so they may be quantised or offloaded.

    Routed experts are set to the implementation in which their neurons can be read (the default, "grouped_mm").

    Raises:
        ModelError: the architecture has a layer without an MLP down projection that can be hooked.
    """
    hidden = network.config.get_text_config(decoder=True).hidden_size
    found = [_neurons_of(layer, index, hidden, network) for index, layer in enumerate(decoder_layers(network))]
    if any(isinstance(layer, MixtureLayer) for layer in found):
        _make_experts_visible(network)
    return tuple(found)


def _neurons_of(layer: nn.Module, index: int, hidden: int, network: "PreTrainedModel") -> NeuronLayer:
    # Take the widest, and the last of equally wide ones: small per-layer adapters (Gemma 3n) have the same structure.
    found = list(_down_projections(layer, hidden))
    dense = max(reversed(found), key=lambda projection: projection[0], default=None)
    dense_layer = DenseLayer(index, *dense) if dense else None
    experts = next((module for name, module in layer.named_modules() if name.split(".")[-1] == "experts"), None)
    if experts is None and dense_layer is None:
        raise ModelError(
            f"Layer {index} of this {_family(network)} model has no MLP down projection: choose a decoder model with "
            "an MLP in every layer."
        )
    routed = _routed(experts) if experts is not None else None
    if routed is not None:
        return MixtureLayer(index, routed, dense_layer)
    if dense_layer is None:
        raise ModelError(
            f"The neurons of the routed experts in layer {index} of this {_family(network)} model cannot be read: "
            "load the model without quantisation, or choose a dense model."
        )
    if experts is not None:
        _log.warning("Layer %d: the routed experts' neurons cannot be read, so only the shared expert's count.", index)
    return dense_layer


def _down_projections(layer: nn.Module, hidden: int) -> Iterator[tuple[int, nn.Module, tuple[nn.Module, ...]]]:
    """(neurons, module, its up projections) of every module in a decoder layer built like a down projection."""
    for name, parent in layer.named_modules():
        parts = name.split(".")
        if "experts" in parts or any(word in part for part in parts for word in _NO_MLP):
            continue
        # State-space mixers project up and down too, but are not MLPs.
        if "A_log" in parent._parameters or any(isinstance(child, nn.Conv1d) for child in parent.children()):
            continue
        shapes = {child: _linear_shape(child) for child in parent.children()}
        for child_name, child in parent.named_children():
            shape = shapes[child]
            if shape is None or shape[1] != hidden or any(word in child_name for word in _NO_MLP):
                continue
            # A square projection (hidden to hidden) must not be its own sibling.
            others = {other: up[1] for other, up in shapes.items() if other is not child and up and up[0] == hidden}
            ups = tuple(other for other, width in others.items() if width in (shape[0], 2 * shape[0]))
            if ups:
                yield shape[0], child, ups


def _linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a Linear, a quantised Linear, or GPT-2's Conv1D; None for other modules."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        widths = tuple(getattr(module, name, None) for name in names)
        if all(isinstance(width, int) for width in widths):
            return widths  # type: ignore[return-value]
    return None


def _routed(experts: nn.Module) -> RoutedExperts | None:
    """The routed experts; None if they are not fused tensors, or are quantised."""
    down = experts._parameters.get("down_proj")
    if down is None or down.ndim != 3 or not down.dtype.is_floating_point or not hasattr(experts, "_apply_gate"):
        return None
    width = down.shape[1] if getattr(experts, "is_transposed", False) else down.shape[2]
    return RoutedExperts(experts, int(down.shape[0]), int(width))


def _make_experts_visible(network: "PreTrainedModel") -> None:
    try:
        network.set_experts_implementation("grouped_mm")
    except (ImportError, ValueError):  # not available on this device; the slower one always is
        network.set_experts_implementation("batched_mm")


def _family(network: "PreTrainedModel") -> str:
    return str(network.config.model_type)

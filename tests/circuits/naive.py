"""The definition, worked slowly: what capture must agree with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cna_core.models.experts import MixtureLayer, RoutedExperts
from cna_core.models.layers import DenseLayer
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode


def naive_values(model: LoadedModel, prompts: Sequence[str]) -> Tensor:
    """(prompts, total): one prompt at a time, no padding, no cache, the whole model with its head."""
    seen: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(inputs[0], Tensor) and len(inputs) > 1:
            seen[module] = _neurons_of_experts(module, inputs[0][-1], inputs[1][-1])
        else:
            seen[module] = inputs[0].reshape(-1, inputs[0].shape[-1])[-1]

    watched = [part for layer in model.neuron_layers for part in _parts(layer)]
    handles = [module.register_forward_pre_hook(note) for module in watched]
    try:
        rows = []
        for prompt in prompts:
            with torch.no_grad():
                model.network(torch.tensor([encode(model, prompt)]), use_cache=False)
            rows.append(torch.cat([seen.pop(module) for module in watched]))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)


def _parts(layer: object) -> list[nn.Module]:
    if isinstance(layer, MixtureLayer):
        return [layer.routed.experts, *([layer.dense.down_projection] if layer.dense else [])]
    assert isinstance(layer, DenseLayer)
    return [layer.down_projection]


def _neurons_of_experts(experts: nn.Module, hidden: Tensor, chosen: Tensor) -> Tensor:
    """(experts · width,): each chosen expert's gated activations for one token, 0 for the others."""
    weight, bias = experts.gate_up_proj, getattr(experts, "gate_up_proj_bias", None)
    transposed = getattr(experts, "is_transposed", False)
    rows = []
    for expert in range(len(weight)):
        gate_up = hidden @ weight[expert] if transposed else weight[expert] @ hidden
        if bias is not None:
            gate_up = gate_up + bias[expert]
        neurons = type(experts)._apply_gate(experts, gate_up[None])[0]  # type: ignore[attr-defined]
        rows.append(neurons if expert in chosen.tolist() else torch.zeros_like(neurons))
    return torch.cat(rows)


def zero_columns(model: LoadedModel, layer: int, neuron: int) -> None:
    """Cut one neuron out of the weights for good: what a multiplier of 0 must equal."""
    found = model.neuron_layers[layer]
    with torch.no_grad():
        if isinstance(found, MixtureLayer) and neuron < found.routed.total:
            _zero_in_experts(found.routed, *divmod(neuron, found.routed.width))
            return
        dense = found.dense if isinstance(found, MixtureLayer) else found
        assert isinstance(dense, DenseLayer)
        column = neuron - (found.routed.total if isinstance(found, MixtureLayer) else 0)
        weight = dense.down_projection.weight
        (weight if hasattr(dense.down_projection, "nx") else weight.T)[column] = 0


def _zero_in_experts(routed: RoutedExperts, expert: int, neuron: int) -> None:
    weight = routed.experts.down_proj[expert]
    (weight if getattr(routed.experts, "is_transposed", False) else weight.T)[neuron] = 0

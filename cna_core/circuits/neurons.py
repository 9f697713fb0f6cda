"""What one neuron does in a loaded model: the tokens that it promotes, and its activation on any text.

Weights are read by passing unit vectors through their modules, so Linear and Conv1D, quantised, sharded and offloaded
weights all work alike.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cna_core.errors import CircuitError
from cna_core.models.layers import NeuronView
from cna_core.models.loaded import LoadedModel

LONGEST_TEXT_TOKENS = 2048


class TokenPushes(NamedTuple):
    """The direct effect of a neuron on the next token's logits, per unit of activation, largest first.

    Args:
        up, down: (token, value) pairs: the tokens whose logits rise and fall most.
    """

    up: list[tuple[str, float]]
    down: list[tuple[str, float]]


def output_tokens(model: LoadedModel, layer: int, neuron: int, count: int = 10) -> TokenPushes:
    """The tokens that a neuron promotes and suppresses most (the "logit lens" of one neuron).

    This is the neuron's column of the down projection, times the final norm's scale, through the unembedding. It leaves
    out the norm's division by the size of the residual stream, which is common to all tokens, and effects through later
    layers.

    Args:
        model: the model.
        layer, neuron: the neuron.
        count: tokens of each direction.

    Raises:
        CircuitError: there is no such neuron, or its layer has no single down projection (routed experts).
    """
    directions = output_directions(model, [layer], [neuron])
    logits = logits_of(model, directions)[0]
    values, tokens = logits.topk(min(count, len(logits)))
    low_values, low_tokens = (-logits).topk(min(count, len(logits)))
    return TokenPushes(_named(model, tokens, values), _named(model, low_tokens, -low_values))


def output_directions(model: LoadedModel, layers: Sequence[int] | NDArray, neurons: Sequence[int] | NDArray) -> Tensor:
    """(n, hidden) float32 on the CPU: each neuron's column of the down projection, times the final norm's scale.

    Raises:
        CircuitError: there is no such neuron, or its layer has no single down projection (routed experts).
    """
    layers, neurons = np.asarray(layers, dtype=np.int64), np.asarray(neurons, dtype=np.int64)
    _check(model, layers.tolist(), neurons.tolist())
    found: list[Tensor] = [torch.empty(0)] * len(layers)
    for layer in np.unique(layers).tolist():
        module = getattr(model.neuron_layers[layer], "down_projection", None)
        if not isinstance(module, nn.Module):
            raise CircuitError(
                f"Layer {layer} of this model has routed experts instead of one down projection, so the tokens that a "
                "neuron promotes cannot be computed; choose a neuron of another layer."
            )
        places = np.flatnonzero(layers == layer)
        units = torch.zeros(len(places), model.neuron_layers[layer].width)
        units[torch.arange(len(places)), torch.from_numpy(neurons[places])] = 1
        with torch.inference_mode():
            here = _linear_part(module, units, model)
            norm = _final_norm(model, module, here.shape[1])
            here = here if norm is None else _through_norm(norm, here, model)
        for place, direction in zip(places.tolist(), here, strict=True):
            found[place] = direction
    return torch.stack(found)


def logits_of(model: LoadedModel, directions: Tensor) -> Tensor:
    """(n, vocabulary) float32 on the CPU: what directions (n, hidden) do to each token's logit, per unit.

    Raises:
        CircuitError: the model has no unembedding.
    """
    head = model.network.get_output_embeddings()
    if head is None:
        raise CircuitError("This model has no unembedding, so the tokens that a neuron promotes cannot be computed.")
    with torch.inference_mode():
        return _linear_part(head, directions, model)


def activations_on_text(
    model: LoadedModel, text: str, layers: Sequence[int] | NDArray, neurons: Sequence[int] | NDArray
) -> tuple[list[str], NDArray[np.float32]]:
    """The activations of chosen neurons at every token of a text, without a chat template.

    Args:
        model: the model.
        text: the text.
        layers, neurons: (n,) the neurons, in the order of the result's columns.

    Returns:
        The tokens as text, and their activations (tokens, n) float32.

    Raises:
        CircuitError: there is no such neuron, or the text is empty or longer than 2,048 tokens or the model's context.
    """
    layers, neurons = np.asarray(layers, dtype=np.int64), np.asarray(neurons, dtype=np.int64)
    _check(model, layers.tolist(), neurons.tolist())
    tokens = model.tokenizer(text)["input_ids"]
    limit = min(LONGEST_TEXT_TOKENS, model.context_tokens)
    if not tokens or not text.strip():
        raise CircuitError("There is no text; type a word or two.")
    if len(tokens) > limit:
        raise CircuitError(f"The text has {len(tokens):,} tokens, more than {limit:,}; shorten it.")
    values = np.zeros((len(tokens), len(layers)), dtype=np.float32)
    handles = []
    try:
        for layer in np.unique(layers):
            columns = np.flatnonzero(layers == layer)
            visit = _reader(torch.from_numpy(neurons[columns]), values, columns)
            handles.append(model.neuron_layers[layer].attach(visit, rows=1))
        with torch.inference_mode():
            model.network.base_model(  # the unembedding is not needed
                input_ids=torch.tensor([tokens], device=model.device),
                attention_mask=torch.ones(1, len(tokens), dtype=torch.long, device=model.device),
                use_cache=False,
            )
    finally:
        for handle in handles:
            handle.remove()
    return [_text(model, token) for token in tokens], values


def _check(model: LoadedModel, layers: list[int], neurons: list[int]) -> None:
    widths = model.layout.widths
    for layer, neuron in zip(layers, neurons, strict=True):
        if not (0 <= layer < len(widths) and 0 <= neuron < widths[layer]):
            raise CircuitError(f"{model.name} has no neuron {neuron} in layer {layer}; it has {len(widths)} layers.")


def _reader(chosen: Tensor, values: NDArray[np.float32], columns: NDArray) -> Callable[[NeuronView], None]:
    def visit(view: NeuronView) -> None:
        values[:, columns] += view.of(chosen)[0].float().cpu().numpy()  # adds up the parts of a layer

    return visit


def _linear_part(module: nn.Module, vectors: Tensor, model: LoadedModel) -> Tensor:
    """(n, out) float32 on the CPU: W · x of a linear module for vectors (n, in), without its bias."""
    weight = next(iter(module.parameters()), None)
    dtype = model.dtype if weight is None or not weight.dtype.is_floating_point else weight.dtype
    inputs = torch.cat([vectors, torch.zeros_like(vectors[:1])]).to(device=_device(module, model), dtype=dtype)
    images = module(inputs).float().cpu()
    return images[:-1] - images[-1:]


def _through_norm(norm: nn.Module, direction: Tensor, model: LoadedModel) -> Tensor:
    """(n, hidden) float32: the directions times the norm's scale, centred first where the norm centres.

    The scale is measured, because model families store it differently (Gemma adds 1): a vector of alternating signs has
    mean 0 and mean square 1, so the norm returns it times the scale, plus the bias.
    """
    signs = torch.ones(1, direction.shape[-1])
    signs[0, 1::2] = -1
    scale = _odd_part(norm, signs, model) * signs
    even = _odd_part(norm, torch.ones_like(signs), model)
    if even.abs().max() < 1e-3 * scale.abs().max():  # a norm that centres (LayerNorm) maps a constant vector to 0
        direction = direction - direction.mean(-1, keepdim=True)
    return direction * scale


def _odd_part(norm: nn.Module, vector: Tensor, model: LoadedModel) -> Tensor:
    """(norm(v) − norm(−v)) / 2, which removes the norm's bias; (1, hidden) float32 on the CPU."""
    plus, minus = norm(torch.cat([vector, -vector]).to(device=_device(norm, model), dtype=model.dtype)).float().cpu()
    return ((plus - minus) / 2)[None]


def _device(module: nn.Module, model: LoadedModel) -> torch.device:
    """The device for the module's input. Offloaded weights are "meta", and accelerate's hook moves inputs to them."""
    weight = next(iter(module.parameters()), None)
    return model.device if weight is None or weight.device.type == "meta" else weight.device


def _final_norm(model: LoadedModel, down_projection: nn.Module, hidden: int) -> nn.Module | None:
    """The last norm in the module that holds the list of decoder layers; None if there is none."""
    for owner in model.network.modules():
        children = list(owner.children())
        lists = [child for child in children if isinstance(child, nn.ModuleList) and len(child) == model.layout.layers]
        if any(module is down_projection for child in lists for module in child.modules()):
            norms = [child for child in children if "norm" in type(child).__name__.lower()]
            fitting = [norm for norm in norms if all(weight.shape == (hidden,) for weight in norm.parameters())]
            return fitting[-1] if fitting else None
    return None


def _named(model: LoadedModel, tokens: Tensor, values: Tensor) -> list[tuple[str, float]]:
    return [(_text(model, token), float(value)) for token, value in zip(tokens, values, strict=True)]


def _text(model: LoadedModel, token: int | Tensor) -> str:
    return str(model.tokenizer.decode([int(token)]))

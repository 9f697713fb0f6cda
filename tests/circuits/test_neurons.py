"""One neuron: the tokens it writes and where it fires, against weights and activations read by hand."""

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from cna_core.circuits.neurons import activations_on_text, output_tokens
from cna_core.errors import CircuitError
from cna_core.models.layers import DenseLayer
from cna_core.models.loaded import LoadedModel
from tests.tiny import tiny_tokenizer

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def loaded(network: nn.Module, projections: list[nn.Module], width: int) -> LoadedModel:
    layers = tuple(DenseLayer(index, width, projection) for index, projection in enumerate(projections))
    return LoadedModel("sample", "random", network.eval(), tiny_tokenizer(), torch.device("cpu"), layers)  # type: ignore[arg-type]


def llama() -> LoadedModel:
    torch.manual_seed(1)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_tokenizer()), num_key_value_heads=2, **SIZES))
    network.model.norm.weight.data.uniform_(0.5, 2)
    return loaded(network, [layer.mlp.down_proj for layer in network.model.layers], 24)


def gemma() -> LoadedModel:
    torch.manual_seed(1)
    config = GemmaConfig(vocab_size=len(tiny_tokenizer()), num_key_value_heads=2, head_dim=8, **SIZES)
    network = GemmaForCausalLM(config)
    network.model.norm.weight.data.uniform_(-0.5, 1)
    return loaded(network, [layer.mlp.down_proj for layer in network.model.layers], 24)


def gpt2() -> LoadedModel:
    torch.manual_seed(1)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer()), n_embd=16, n_inner=24, n_layer=2, n_head=2))
    norm = network.transformer.ln_f
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    for block in network.transformer.h:
        block.mlp.c_proj.bias.data.normal_()
    return loaded(network, [block.mlp.c_proj for block in network.transformer.h], 24)


def by_hand(model: LoadedModel, layer: int, neuron: int) -> Tensor:
    """(vocabulary,): the definition, from the weights."""
    projection = model.neuron_layers[layer].down_projection  # type: ignore[attr-defined]
    if isinstance(model.network, GPT2LMHeadModel):
        column = projection.weight[neuron]  # Conv1D stores (in, out)
        direction = (column - column.mean()) * model.network.transformer.ln_f.weight
    else:
        scale = model.network.model.norm.weight
        direction = projection.weight[:, neuron] * (scale + 1 if isinstance(model.network, GemmaForCausalLM) else scale)
    return (model.network.get_output_embeddings().weight @ direction).detach()


@pytest.mark.parametrize("build", [llama, gemma, gpt2])
def test_output_tokens_are_the_column_through_the_norms_scale_and_the_unembedding(build: object) -> None:
    model = build()  # type: ignore[operator]
    expected = by_hand(model, 1, 5)
    pushes = output_tokens(model, 1, 5, count=4)
    order = expected.argsort(descending=True)
    assert [token for token, _ in pushes.up] == [model.tokenizer.decode([int(token)]) for token in order[:4]]
    assert [token for token, _ in pushes.down] == [model.tokenizer.decode([int(token)]) for token in order.flip(0)[:4]]
    np.testing.assert_allclose([value for _, value in pushes.up], expected[order[:4]], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose([value for _, value in pushes.down], expected[order.flip(0)[:4]], rtol=1e-3, atol=1e-6)


def test_offloaded_weights_give_the_same_tokens() -> None:
    expected = output_tokens(llama(), 0, 3)
    model = llama()
    cpu_offload(model.network, execution_device=torch.device("cpu"))
    assert model.network.get_output_embeddings().weight.device.type == "meta"
    assert output_tokens(model, 0, 3) == expected


def test_more_tokens_than_the_vocabulary_has_is_all_of_them() -> None:
    assert len(output_tokens(llama(), 0, 0, count=10_000).up) == len(tiny_tokenizer())


def test_a_layer_of_routed_experts_has_no_output_direction_to_read() -> None:
    class Experts:
        index, width = 0, 24

    model = llama()
    object.__setattr__(model, "neuron_layers", (Experts(), model.neuron_layers[1]))
    with pytest.raises(CircuitError, match="routed experts") as refusal:
        output_tokens(model, 0, 0)
    assert "\n" not in str(refusal.value)


def test_activations_on_text_are_the_inputs_of_the_down_projection_at_every_token() -> None:
    model = llama()
    seen: list[Tensor] = []
    projection = model.network.model.layers[1].mlp.down_proj
    handle = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    tokens, values = activations_on_text(model, "how do i bake bread", layers=[1, 0, 1], neurons=[7, 2, 0])
    handle.remove()
    assert tokens == ["how", "do", "i", "bake", "bread"]
    assert values.shape == (5, 3) and values.dtype == np.float32
    np.testing.assert_array_equal(values[:, 0], seen[0][:, 7])
    np.testing.assert_array_equal(values[:, 2], seen[0][:, 0])
    assert not projection._forward_pre_hooks and not model.network.model.layers[0].mlp.down_proj._forward_pre_hooks


@pytest.mark.parametrize(("layer", "neuron"), [(2, 0), (0, 24), (-1, 0), (0, -1)])
def test_a_neuron_that_does_not_exist_is_told(layer: int, neuron: int) -> None:
    with pytest.raises(CircuitError, match="has no neuron"):
        output_tokens(llama(), layer, neuron)
    with pytest.raises(CircuitError, match="has no neuron"):
        activations_on_text(llama(), "how", [layer], [neuron])


@pytest.mark.parametrize(("text", "reason"), [("", "no text"), (" \n", "no text"), ("how " * 3000, "3,000 tokens")])
def test_text_that_cannot_be_read_is_told(text: str, reason: str) -> None:
    with pytest.raises(CircuitError, match=reason):
        activations_on_text(llama(), text, [0], [0])

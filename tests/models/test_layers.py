"""Neurons are found by structure; what is not supported says so in one sentence."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from cna_core.errors import ModelError
from cna_core.models.layers import DenseLayer, decoder_layers, find_neuron_layers, text_decoder
from cna_core.models.loaded import LoadedModel
from tests.models.test_architectures import FAMILIES, SIZES

TINY = {"vocab_size": 35, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def build(kind: str, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TINY, **settings)).eval()


def widths(network: Any) -> list[int]:
    return [layer.width for layer in find_neuron_layers(network)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", [40, 40, 40]),
        ("gpt2", [128, 128, 128]),
        ("opt", [40, 40, 40]),
        ("phi3", [40, 40, 40]),
        ("gemma3n_text", [40, 40, 40]),
        ("qwen3_moe", [48, 48, 48]),
        ("qwen2_moe", [68, 68, 68]),
        ("deepseek_v3", [40, 60, 60]),
        ("lfm2", [40, 40, 40]),
    ],
)
def test_layers_have_the_width_of_their_mlp(kind: str, expected: list[int]) -> None:
    assert widths(build(kind, **FAMILIES[kind])) == expected


def test_layers_may_differ_in_width() -> None:
    settings = {**FAMILIES["gemma3n_text"], "intermediate_size": [40, 64, 80]}
    assert widths(build("gemma3n_text", **settings)) == [40, 64, 80]


def test_weights_that_are_elsewhere_are_not_needed() -> None:
    with torch.device("meta"):
        assert widths(build("qwen2", **SIZES)) == [40, 40, 40]


def test_the_decoder_is_the_model_without_its_head(tiny_model: LoadedModel) -> None:
    assert text_decoder(tiny_model.network) is tiny_model.network.model
    assert decoder_layers(tiny_model.network) == tuple(tiny_model.network.model.layers)


def test_a_model_without_mlps_is_refused_in_one_sentence() -> None:
    network = build("mamba", hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(ModelError, match="Layer 0 of this mamba model has no MLP"):
        find_neuron_layers(network)


def test_a_model_whose_experts_cannot_be_looked_into_is_refused_in_one_sentence() -> None:
    network = build("qwen3_moe", **FAMILIES["qwen3_moe"])
    experts = network.model.layers[1].mlp.experts
    experts.down_proj = nn.Parameter(experts.down_proj.to(torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="routed experts in layer 1 of this qwen3_moe model"):
        find_neuron_layers(network)


def test_shared_experts_are_found_where_routed_ones_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    network = build("qwen2_moe", **FAMILIES["qwen2_moe"])
    for layer in network.model.layers:
        layer.mlp.experts.down_proj = nn.Parameter(layer.mlp.experts.down_proj.to(torch.uint8), requires_grad=False)
    assert widths(network) == [20, 20, 20] and "routed experts' neurons cannot be read" in caplog.text


def test_a_view_multiplies_row_by_row() -> None:
    layer = DenseLayer(0, 3, nn.Linear(3, 2, bias=False))
    rows = torch.arange(12, dtype=torch.float32).reshape(2, 2, 3)
    table = torch.tensor([[1.0, 1, 1], [0.0, -1, 2]])
    handle = layer.attach(lambda view: view.multiply(table), rows=2)
    with torch.no_grad():
        steered = layer.down_projection(rows)
        handle.remove()
        assert torch.equal(steered, layer.down_projection(rows * table[:, None]))
        assert not torch.equal(steered, layer.down_projection(rows))


def test_a_view_shows_neurons_at_positions_and_by_name() -> None:
    layer = DenseLayer(0, 3, nn.Linear(3, 2))
    rows = torch.arange(12, dtype=torch.float32).reshape(2, 2, 3)
    seen: list[Tensor] = []
    handle = layer.attach(lambda view: seen.extend([view.at(torch.tensor([1, 0])), view.of(torch.tensor([2]))]), rows=2)
    layer.down_projection(rows.reshape(4, 3))  # as OPT hands them over
    handle.remove()
    assert seen[0].tolist() == [[3, 4, 5], [6, 7, 8]]
    assert seen[1].squeeze(-1).tolist() == [[2, 5], [8, 11]]


def test_hooks_of_several_visitors_come_off_in_any_order() -> None:
    network = build("qwen3_moe", **FAMILIES["qwen3_moe"])
    layer = find_neuron_layers(network)[0]
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = network(tokens).logits
        first = layer.attach(lambda view: view.multiply(torch.zeros(1, 48)), rows=1)
        second = layer.attach(lambda view: view.multiply(torch.full((1, 48), 2.0)), rows=1)
        first.remove()
        assert not torch.equal(network(tokens).logits, expected)
        second.remove()
        assert torch.equal(network(tokens).logits, expected)

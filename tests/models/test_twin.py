"""A twin has the same weights and modules of its own."""

from itertools import chain

import pytest
import torch

from cna_core.models import prepacked
from cna_core.models.loaded import LoadedModel
from cna_core.models.prepacked import packed_weights, prepack
from cna_core.models.twin import can_have_twin, twin
from tests.tiny import tiny_llama


def logits(model: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.network(input_ids=torch.tensor([[1, 2, 3]])).logits


def test_a_twin_computes_by_the_same_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "FEWEST_WEIGHTS", 1)
    model = tiny_llama()
    prepack(model.network)
    other = twin(model)
    assert can_have_twin(model) and other.network is not model.network and other.layout == model.layout
    mine, theirs = (list(chain(one.network.parameters(), one.network.buffers())) for one in (model, other))
    assert all(first is second for first, second in zip(mine, theirs, strict=True))
    packed = zip(packed_weights(model.network), packed_weights(other.network), strict=True)
    assert all(first is second for first, second in packed)
    assert torch.equal(logits(model), logits(other))


def test_what_is_done_to_a_twins_modules_is_not_done_to_the_model(tiny_model: LoadedModel) -> None:
    before, other = logits(tiny_model), twin(tiny_model)
    modules = set(tiny_model.network.modules())
    assert not any(module in modules for module in other.network.modules())
    layer = other.neuron_layers[1]
    handle = layer.attach(lambda view: view.at(torch.tensor([0])).fill_(9.0), rows=1)
    other.network.model.layers[0].mlp.register_forward_hook(lambda *_: torch.zeros(()))
    other.network.set_attn_implementation("eager")
    assert tiny_model.network.config._attn_implementation == "sdpa"
    assert torch.equal(logits(tiny_model), before)
    handle.remove()


def test_none_where_modules_keep_more_than_tensors(tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tiny_model.network.config, "quantization_config", {"load_in_8bit": True}, raising=False)
        assert not can_have_twin(tiny_model)
    assert can_have_twin(tiny_model)

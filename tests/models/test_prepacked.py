"""Prepacked layers compute what their weights say, also after the weights have changed."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from cna_core.models import prepacked
from cna_core.models.load import load_model
from cna_core.models.prepacked import PrepackedLinear, prepack, unpacked
from tests.tiny import tiny_llama

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "FEWEST_WEIGHTS", 1)
    require_kernels(torch.float32)


def require_kernels(dtype: torch.dtype) -> None:
    if not prepacked._kernels_work(dtype):
        pytest.skip(f"this build of torch cannot prepack {dtype} on this CPU")


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(48, 80), nn.SiLU(), nn.Linear(80, 48, bias=False))
    return layers.requires_grad_(False).to(dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(48,), (1, 48), (2, 48), (3, 7, 48), (0, 48)], ids=str)
def test_the_product_is_the_weights(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    require_kernels(dtype)
    plain, packed = network(dtype), network(dtype)
    assert prepack(packed) == 2
    rows = torch.randn(shape).to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-3}
    torch.testing.assert_close(packed(rows), plain(rows), **tolerance)


def test_rows_that_do_not_lie_together_are_multiplied_too() -> None:
    plain, packed = network(), network()
    prepack(packed)
    rows = torch.randn(48, 5).T
    torch.testing.assert_close(packed(rows), plain(rows))


def test_the_weights_stay_to_be_read_and_saved() -> None:
    plain, packed = network(), network()
    prepack(packed)
    assert isinstance(packed[0], PrepackedLinear) and torch.equal(packed[0].weight, plain[0].weight)
    assert list(packed.state_dict()) == list(plain.state_dict())


def test_a_weight_that_changed_is_what_counts() -> None:
    packed = network()
    prepack(packed)
    rows = torch.randn(3, 48)
    with torch.no_grad():
        packed[2].weight[:, 4] = 0
        packed[2].weight[:, 5] *= 3
    torch.testing.assert_close(packed(rows), packed[1](packed[0](rows)) @ packed[2].weight.T)
    packed[0].weight = nn.Parameter(torch.zeros(80, 48), requires_grad=False)
    torch.testing.assert_close(packed[0](rows), packed[0].bias.expand(3, -1))


def test_a_copy_has_weights_of_its_own() -> None:
    packed = network()
    prepack(packed)
    cut = copy.deepcopy(packed)
    cut[2].weight.zero_()
    rows = torch.randn(3, 48)
    assert not cut(rows).any() and packed(rows).any()
    assert prepack(cut) == 2 and not cut(rows).any()


def test_gradients_pass() -> None:
    packed = network()
    prepack(packed)
    rows = torch.randn(3, 48, requires_grad=True)
    packed(rows).sum().backward()
    assert rows.grad is not None and rows.grad.any()


def test_unpacked_multiplies_by_the_weights_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = network()
    prepack(packed)
    multiplied: list[int] = []
    multiply = prepacked._multiply
    monkeypatch.setattr(prepacked, "_multiply", lambda *given: (multiplied.append(1), multiply(*given))[1])
    rows = torch.randn(3, 48)
    with unpacked(packed):
        packed(rows)
    assert not multiplied
    packed(rows)
    assert len(multiplied) == 2


def test_what_is_small_or_another_kind_of_linear_or_moved_about_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quantised(nn.Linear):
        pass

    monkeypatch.setattr(prepacked, "FEWEST_WEIGHTS", 1000)
    layers = nn.Sequential(nn.Linear(10, 10), Quantised(48, 80), nn.Linear(80, 48), nn.Linear(48, 48).half())
    layers.append(nn.Linear(48, 48))[-1]._hf_hook = object()
    assert prepack(layers) == 1
    assert [type(layer) is PrepackedLinear for layer in layers] == [False, False, True, False, False]


def test_where_less_than_three_times_the_weights_were_free_nothing_is_prepacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = 2 * 4 * 48 * 80 + 4 * 80
    monkeypatch.setattr(prepacked, "free_memory_bytes", lambda _: 2 * weights - 1)  # beside the weights
    assert prepack(network()) == 0
    monkeypatch.setattr(prepacked, "free_memory_bytes", lambda _: 2 * weights)
    assert prepack(network()) == 2


def test_without_the_kernels_nothing_is_prepacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(prepacked, "_multiply", missing)
    prepacked._kernels_work.cache_clear()
    try:
        assert prepack(network()) == 0
    finally:
        prepacked._kernels_work.cache_clear()


def test_models_on_the_cpu_are_loaded_prepacked(tmp_path: Path) -> None:
    tiny = tiny_llama()
    tiny.network.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), "cpu", "float32")
    layers = [module for module in model.network.modules() if isinstance(module, PrepackedLinear)]
    assert len(layers) == 4 * 7 + 1
    weights = sum(weight.nbytes for weight in model.network.parameters())
    assert model.memory_bytes == weights + sum(layer.weight.nbytes for layer in layers)
    rows = torch.tensor([[2, 9, 10, 11]] * 2)
    with torch.no_grad(), unpacked(model.network):
        expected = model.network(rows).logits
    with torch.no_grad():
        torch.testing.assert_close(model.network(rows).logits, expected)

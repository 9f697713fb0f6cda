"""Stored activations: statistics by hand, dropped prompts, and files that survive or are thrown away."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cna_core.circuits.activations import CACHE, Activations, largest
from cna_core.errors import CircuitError
from cna_core.models.layout import ModelIdentity
from cna_core.prompts.sets import ContrastSet, PromptSet

WIDTHS = (60, 40)


def activations_of(values: NDArray | torch.Tensor, positives: int, dtype: torch.dtype = torch.float32) -> Activations:
    tensor = torch.as_tensor(values).to(dtype)
    total = tensor.shape[1]
    model = ModelIdentity(
        name="random", revision="0", layers=2, neurons_per_layer=(total - 1, 1), dtype=str(dtype).split(".")[1]
    )
    names = [f"prompt {row}" for row in range(len(tensor))]
    positive, negative = tuple(names[:positives]), tuple(names[positives:])
    contrast = ContrastSet(PromptSet("positive", positive), PromptSet("negative", negative))
    return Activations.of_values(model, positive, negative, contrast.sha256, tensor)


def random_activations(dtype: torch.dtype = torch.float32) -> Activations:
    values = np.random.default_rng(0).standard_normal((9, 300)) ** 3
    return activations_of(values, 4, dtype)


def assert_same(first: Activations, second: Activations) -> None:
    assert first.prompts == second.prompts and first.sha256 == second.sha256 and first.model == second.model
    assert torch.equal(first.values, second.values)
    for name in ("delta", "positive_mean", "negative_mean", "effect_size"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-6, atol=1e-7)
    assert np.array_equal(first.top, second.top)


def test_statistics_of_a_case_worked_by_hand() -> None:
    activations = activations_of([[1.0, 5.0], [3.0, 5.0], [0.0, 5.0], [2.0, 5.0], [4.0, 5.0]], positives=2)
    assert activations.positive_mean.tolist() == [2, 5] and activations.negative_mean.tolist() == [2, 5]
    assert activations.positive_sums.variance.tolist() == [2, 0]
    assert activations.negative_sums.variance.tolist() == [4, 0]
    assert activations.is_positive.tolist() == [True, True, False, False, False]


def test_effect_size_is_delta_over_the_pooled_standard_deviation_and_zero_where_nothing_varies() -> None:
    activations = activations_of([[3.0, 5.0], [5.0, 5.0], [0.0, 1.0], [2.0, 1.0]], positives=2)
    np.testing.assert_allclose(activations.delta, [3, 4])
    np.testing.assert_allclose(activations.effect_size, [3 / np.sqrt(2), 0], rtol=1e-6)


def test_one_prompt_a_class_has_a_delta_and_no_effect_size() -> None:
    activations = activations_of([[3.0, 1.0], [1.0, 1.5]], positives=1)
    assert activations.delta.tolist() == [2, -0.5] and activations.effect_size.tolist() == [0, 0]


def test_means_of_bfloat16_values_are_accumulated_in_more_than_bfloat16() -> None:
    values = torch.full((1001, 2), 1.0)
    values[0] = 256  # 256 + 1 is 256 in bfloat16: a sum in that dtype would never move on
    activations = activations_of(values, 1000, torch.bfloat16)
    np.testing.assert_allclose(activations.positive_mean, 1.255, rtol=1e-6)
    assert activations.positive_mean.dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_top_ranks_each_prompt_by_magnitude(dtype: torch.dtype) -> None:
    activations = random_activations(dtype)
    magnitude = activations.values.abs().float().numpy()
    expected = np.argsort(-magnitude, axis=1, kind="stable")[:, :6]
    assert activations.top.dtype == np.int32 and np.array_equal(activations.top, expected)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_ties_go_to_the_lower_position(row: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(row)))
    expected = sorted(range(len(row)), key=lambda place: (-abs(row[place]), place))[:count]
    assert largest(torch.tensor([row], dtype=torch.bfloat16), count).tolist() == [expected]


@given(st.sets(st.integers(0, 8), max_size=6))
def test_leaving_prompts_out_equals_never_having_had_them(gone: set[int]) -> None:
    activations = random_activations()
    kept = [row for row in range(9) if row not in gone]
    positives = sum(row < 4 for row in kept)
    if positives in (0, len(kept)):
        with pytest.raises(CircuitError, match="must remain"):
            activations.without(gone)
        return
    expected = activations_of(activations.values[kept], positives)
    left = activations.without(gone)
    np.testing.assert_allclose(left.delta, expected.delta, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(left.effect_size, expected.effect_size, rtol=1e-4, atol=1e-6)
    assert left.prompts == tuple(activations.prompts[row] for row in kept)
    assert torch.equal(left.values, expected.values) and np.array_equal(left.top, expected.top)


def test_leaving_nothing_out_keeps_the_hash_of_the_contrast_set() -> None:
    activations = random_activations()
    assert activations.without([]).sha256 == activations.sha256 != activations.without([0]).sha256


def test_prompts_can_be_left_out_step_by_step() -> None:
    activations = random_activations()
    step_by_step, at_once = activations.without([0]).without([0, 6]), activations.without([0, 1, 7])
    assert step_by_step.prompts == at_once.prompts and step_by_step.sha256 == at_once.sha256
    assert torch.equal(step_by_step.values, at_once.values)
    np.testing.assert_allclose(step_by_step.effect_size, at_once.effect_size, rtol=1e-5)


def test_a_prompt_that_does_not_exist_cannot_be_left_out() -> None:
    with pytest.raises(CircuitError, match="only 9 prompts"):
        random_activations().without([9])


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CircuitError, match="not finite in float16"):
        activations_of([[70000.0, 1.0], [1.0, 1.0]], 1, torch.float16)


def test_values_of_another_shape_are_refused() -> None:
    activations = random_activations()
    with pytest.raises(CircuitError, match="shape"):
        Activations.of_values(activations.model, ("a",), ("b",), "", activations.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    activations = random_activations(dtype)
    assert_same(Activations.load(activations.save(tmp_path / "a.safetensors")), activations)


def test_a_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("nothing of the kind")
    with pytest.raises(CircuitError, match="cannot be read"):
        Activations.load(tmp_path / "a.safetensors")
    with pytest.raises(CircuitError, match="cannot be read"):
        Activations.load(tmp_path / "missing.safetensors")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_file_is_noticed_and_thrown_away(empty_cache: Path, damage) -> None:  # type: ignore[no-untyped-def]
    CACHE.keep(random_activations(), "key")
    assert CACHE.find("key") is not None
    damage(CACHE.path("key"))
    assert CACHE.find("key") is None and not CACHE.path("key").exists()


def test_activations_do_not_change_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        random_activations().sha256 = "other"  # type: ignore[misc]

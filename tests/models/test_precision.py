from collections.abc import Iterator

import pytest
import torch

from cna_core.models import precision
from cna_core.models.precision import as_device, as_dtype, choose_device, choose_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def a_cpu_without_a_matrix_unit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "has_bfloat16_matrix_unit", lambda: False)
    precision.multiplies_bfloat16_fast.cache_clear()
    yield
    precision.multiplies_bfloat16_fast.cache_clear()


@pytest.mark.parametrize(
    ("slowdowns", "chosen"),
    [
        ({2: 0.5, 512: 0.2}, torch.bfloat16),
        ({2: 1.1, 512: 1.2}, torch.bfloat16),
        ({2: 0.6, 512: 8.0}, torch.float32),
        ({2: 0.9, 512: 1.7}, torch.float32),
        ({2: 3.0, 512: 1.0}, torch.float32),
    ],
    ids=["fast", "even", "emulated", "without a matrix unit", "slow to decode"],
)
def test_bfloat16_is_chosen_where_it_keeps_up(
    slowdowns: dict[int, float], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure_slowdown", lambda device, rows: slowdowns[rows])
    assert choose_dtype(CPU) == chosen


def test_a_device_that_knows_no_bfloat16_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device, rows: int) -> float:
        raise TypeError("BFloat16 is not supported")

    monkeypatch.setattr(precision, "measure_slowdown", fail)
    assert choose_dtype(CPU) == torch.float32


def test_it_is_measured_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    monkeypatch.setattr(precision, "measure_slowdown", lambda device, rows: measured.append(rows) or 0.5)
    for _ in range(3):
        choose_dtype(CPU)
    assert measured == [2, 512]


def test_a_cpu_with_a_bfloat16_matrix_unit_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_matrix_unit", lambda: True)
    monkeypatch.setattr(precision, "measure_slowdown", lambda device, rows: pytest.fail("measured"))
    assert choose_dtype(CPU) == torch.bfloat16


def test_the_measurement_gives_a_ratio() -> None:
    assert 0 < precision.measure_slowdown(CPU, rows=2, repeats=1) < float("inf")


@pytest.mark.parametrize("native", [True, False])
def test_cuda_is_asked_about_native_bfloat16(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert choose_dtype(torch.device("cuda")) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_cuda_then_mps_then_cpu(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(chosen)


def test_names_and_torch_objects_are_taken_alike() -> None:
    assert as_device("cpu") == as_device(CPU) == CPU
    assert as_dtype("float16", CPU) == as_dtype(torch.float16, CPU) == torch.float16

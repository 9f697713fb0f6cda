from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cna_core.models import precision
from cna_core.models.precision import as_device, as_dtype, choose_device, choose_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def a_cpu_whose_instructions_leave_it_open(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Iterator[None]:
    with_instructions(monkeypatch, avx512_bf16=True)
    precision.multiplies_bfloat16_fast.cache_clear()
    yield
    precision.multiplies_bfloat16_fast.cache_clear()


def with_instructions(monkeypatch: pytest.MonkeyPatch, **instructions: bool) -> None:
    there = {"architecture": "x86_64", "avx2": True, **instructions}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)


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


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every measurement; each finds bfloat16 fast."""
    rows: list[int] = []
    monkeypatch.setattr(precision, "measure_slowdown", lambda device, count: rows.append(count) or 0.5)
    return rows


def test_it_is_measured_once_for_a_cpu_and_remembered_by_other_processes(measured: list[int]) -> None:
    for _ in range(3):
        assert choose_dtype(CPU) == torch.bfloat16
        precision.multiplies_bfloat16_fast.cache_clear()  # as another process begins
    assert measured == [2, 512]


def test_another_cpu_is_measured_for_itself(measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    choose_dtype(CPU)
    precision.multiplies_bfloat16_fast.cache_clear()
    with_instructions(monkeypatch, avx512_bf16=True, avx512_f=True)
    choose_dtype(CPU)
    assert measured == [2, 512] * 2


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
    ],
    ids=["a matrix unit for bfloat16", "no instruction for bfloat16"],
)
def test_instructions_that_say_it_are_believed_without_a_measurement(
    instructions: dict[str, bool], chosen: torch.dtype, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_instructions(monkeypatch, **instructions)
    assert choose_dtype(CPU) == chosen
    assert not measured


def test_a_cpu_of_which_torch_says_nothing_is_measured(measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with_instructions(monkeypatch)
    assert choose_dtype(CPU) == torch.bfloat16
    assert measured == [2, 512]


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

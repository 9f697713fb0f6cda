from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cna_core.models.memory import free_memory_bytes, weights_bytes


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, 4 * 15 + 8 * 3), (torch.bfloat16, 2 * 15 + 8 * 3)])
def test_the_size_in_memory_counts_floats_in_the_wanted_dtype(
    tmp_path: Path, dtype: torch.dtype, expected: int
) -> None:
    save_file({"a": torch.zeros(5, dtype=torch.bfloat16), "b": torch.zeros(10)}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.zeros(3, dtype=torch.int64)}, tmp_path / "model-2.safetensors")
    assert weights_bytes(tmp_path, dtype) == expected


def test_free_memory_is_told_or_unknown() -> None:
    free = free_memory_bytes(torch.device("cpu"))
    assert free is None or free > 0

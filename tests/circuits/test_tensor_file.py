"""A file of tensors says whether it is whole."""

from pathlib import Path

import pytest
import torch

from cna_core.circuits.tensor_file import load_tensors, save_tensors
from cna_core.errors import CircuitError

FORMAT = "stand-in/1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1, 2], dtype=torch.bfloat16)}
    return save_tensors(tmp_path / "file.safetensors", FORMAT, tensors, {"words": "text"})


def test_what_is_saved_is_loaded(file: Path) -> None:
    tensors, about = load_tensors(file, FORMAT)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3).T)
    assert tensors["b"].dtype == torch.bfloat16 and about["words"] == "text"
    assert list(file.parent.iterdir()) == [file]


def test_another_format_is_refused(file: Path) -> None:
    with pytest.raises(CircuitError, match="not a file of the format stand-in/2"):
        load_tensors(file, "stand-in/2")


@pytest.mark.parametrize("place", [-1, -20])
def test_a_changed_byte_is_noticed(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CircuitError, match="checksum does not match"):
        load_tensors(file, FORMAT)


@pytest.mark.parametrize("kept_bytes", [0, 7, 100])
def test_a_truncated_file_is_told(file: Path, kept_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(CircuitError, match="cannot be read"):
        load_tensors(file, FORMAT)

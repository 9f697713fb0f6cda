"""Tensors and metadata in one safetensors file, with a checksum to detect damage."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cna_core.errors import CircuitError, StorageError
from cna_core.outside import Count, Line, Text
from cna_core.paths import written_beside

TEXTS = TypeAdapter(tuple[Text, ...])
"""Reads prompts from a file's metadata."""
TOKENS = TypeAdapter(tuple[Count, ...])
"""Reads ids of tokens from a file's metadata."""
_LINE = TypeAdapter(Line)


def save_tensors(path: Path, file_format: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Path:
    """Write the file, completely or not at all.

    Args:
        path: the file.
        file_format: name and version, such as "cna-activations/1".
        tensors: the tensors by name.
        about: metadata for the file's header.

    Raises:
        StorageError: it cannot be written.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_beside(path) as draft:
        try:
            save_file(contiguous, draft, {**about, "format": file_format, "checksum": _checksum(contiguous)})
        except SafetensorError as error:  # what safetensors makes of every error of the system
            raise StorageError(
                f"{path} cannot be written ({error}): free some space, or choose another folder."
            ) from error
    return path


def load_tensors(path: Path, file_format: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file written by `save_tensors`.

    Raises:
        CircuitError: the file is missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        checksum = _checksum(tensors)
    except (OSError, SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CircuitError(f"{path.name} cannot be read ({error}); record it again.") from error
    if about.get("format") != file_format:
        raise CircuitError(f"{path.name} is not a file of the format {file_format}; record it again.")
    if about.get("checksum") != checksum:
        raise CircuitError(f"{path.name} is damaged, because its checksum does not match; record it again.")
    return tensors, about


def line(name: str) -> str:
    """A name from a file's metadata.

    Raises:
        ValueError: it cannot be shown in one line.
    """
    return _LINE.validate_python(name)


def numbers(tensor: Tensor, *shape: int | None, finite: bool = True) -> Tensor:
    """The tensor, if it holds floating-point numbers and has this shape; None allows any size.

    Args:
        finite: whether infinite numbers and NaN are refused.

    Raises:
        ValueError: it is of another shape or kind, or a number is not finite.
    """
    if tensor.dim() != len(shape) or any(
        size not in (None, is_) for size, is_ in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"a tensor has the shape {tuple(tensor.shape)}")
    if tensor.dtype not in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        raise ValueError(f"a tensor holds {tensor.dtype}")
    # A sum is not finite if any number is not. It takes no memory, and activations are far from overflowing float32.
    total = tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)
    if finite and not bool(torch.isfinite(total)):
        raise ValueError("a tensor has numbers that are infinite or not numbers")
    return tensor


def float64(tensor: Tensor, *shape: int) -> NDArray[np.float64]:
    """As `numbers`, as an array of float64."""
    return numbers(tensor, *shape).double().numpy()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"

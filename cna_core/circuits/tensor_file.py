"""Tensors and metadata in one safetensors file, with a checksum to detect damage."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cna_core.errors import CircuitError, StorageError
from cna_core.paths import written_beside


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
    except (OSError, SafetensorError) as error:
        raise CircuitError(f"{path.name} cannot be read ({error}); record it again.") from error
    if about.get("format") != file_format:
        raise CircuitError(f"{path.name} is not a file of the format {file_format}; record it again.")
    if about.get("checksum") != _checksum(tensors):
        raise CircuitError(f"{path.name} is damaged, because its checksum does not match; record it again.")
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"

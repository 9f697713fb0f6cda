"""Memory: how much a device has free, how much a model in a folder will take, and work that may run out of it."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from cna_core.errors import ModelError
from cna_core.outside import read_json

if TYPE_CHECKING:  # the model host does not import torch before a model is wanted
    import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")

_RAN_OUT = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


class NoRoomError(ModelError):
    """The model does not fit into the free memory."""

    code = "no-room"


def free_memory_bytes(device: "torch.device") -> int | None:
    """Free memory of the device; None if the system does not report it."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = [room for room in (_system_free(), _control_group_free()) if room is not None]
    return min(free) if free else None


def if_memory_allows(work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result | None:
    """The result of `work`, or None if it ran out of memory; then its memory is freed."""
    try:
        return work(*given, **named)
    except (RuntimeError, MemoryError) as problem:
        if not is_out_of_memory(problem):
            raise
    import torch

    # Outside the handler, because the exception keeps the failed work's memory alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def weights_bytes(folder: Path, dtype: "torch.dtype") -> int:
    """Memory of a safetensors folder's weights, with floating-point weights in `dtype`; read from the headers.

    Raises:
        OSError, ValueError, KeyError, struct.error: a header is damaged.
    """
    total = 0
    for path in folder.glob("*.safetensors"):
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, LARGEST_HEADER_BYTES):
                raise ValueError(f"the header of {path.name} says that it is longer than the file")
            header = read_json(file.read(length))
        try:
            for name, tensor in header.items():
                if name == "__metadata__":
                    continue
                begin, end = tensor["data_offsets"]
                width = FLOAT_BYTES.get(tensor["dtype"])
                total += end - begin if width is None else (end - begin) // width * dtype.itemsize
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the header of {path.name} is damaged") from error
    return total


LARGEST_HEADER_BYTES = 100_000_000
"""What safetensors itself reads at most."""
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def _system_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in lines)
    return int(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else None


def _control_group_free() -> int | None:
    """Free memory under a container's limit. File cache counts as free, because the system frees it on demand."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - used + int(facts.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    import torch

    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(problem).lower()
    return any(sign in words for sign in _RAN_OUT)

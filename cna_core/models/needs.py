"""What a model needs on this machine, known before it is downloaded or loaded: `needs_of`.

That is the download size, the memory in each number format, whether it fits, and which alternatives fit. It uses the
catalog and the headers of files, and loads nothing.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from cna_core.models.catalog import CatalogEntry, catalog
from cna_core.models.fetch import is_ready
from cna_core.models.loaded import LoadedModel
from cna_core.models.memory import NoRoomError, free_memory_bytes, is_out_of_memory, weights_bytes
from cna_core.models.precision import as_device, as_dtype, choose_dtype
from cna_core.progress_words import size_in_words

WORKING_SHARE = 1.15
"""Memory for work with a model relative to that of its weights: keys and values, activations, logits."""

FORMATS = ("float32", "bfloat16")
FOUR_BIT = "4bit"
_GIB = 1 << 30


@dataclass(frozen=True)
class WouldFit:
    """An alternative that fits into the free memory.

    Args:
        name: the model: the same one, or a smaller one of the catalog.
        number_format: "float32", "bfloat16" or "4bit".
        memory_bytes: the memory that it takes.
        slow: whether this machine computes slowly in that format.
    """

    name: str
    number_format: str
    memory_bytes: int
    slow: bool = False

    @property
    def words(self) -> str:
        """Such as "qwen2.5-coder-0.5b-instruct in float32 (2.7 GB)"."""
        size = size_in_words(self.memory_bytes) + (", slow on this machine" if self.slow else "")
        return f"{self.name} in {self.number_format} ({size})"


@dataclass(frozen=True)
class ModelNeeds:
    """What a model needs on this machine; made by `needs_of` or `needs_of_folder`.

    Args:
        name: the model's name as the user gave it.
        download_bytes: the download size; 0 if the model is on this machine.
        memory_by_format: memory in bytes by number format, for weights and work.
        number_format: the format that the model will be loaded in.
        device: the device that it will be loaded on.
        free_bytes: free memory of the device; None if the system does not report it.
    """

    name: str
    download_bytes: int
    memory_by_format: Mapping[str, int]
    number_format: str
    device: str
    free_bytes: int | None

    @property
    def memory_bytes(self) -> int:
        """Memory in the format that the model will be loaded in."""
        return self.memory_by_format[self.number_format]

    @property
    def fits(self) -> bool:
        """Whether that much is free; True if the system does not report it."""
        return self.free_bytes is None or self.memory_bytes <= self.free_bytes

    @property
    def would_fit(self) -> tuple[WouldFit, ...]:
        """Alternatives that fit into the free memory: other formats of the model, then smaller embedded models."""
        free = self.memory_bytes if self.free_bytes is None else self.free_bytes
        slow = {"bfloat16"} if self.device == "cpu" and choose_dtype(torch.device("cpu")) != torch.bfloat16 else set()
        ways = [WouldFit(self.name, form, size, form in slow) for form, size in self.memory_by_format.items()]
        for entry in catalog().values():
            size = _memory_by_format(entry, self.device).get(self.number_format, 0)
            if entry.embedded is not None and entry.id != self.name:
                ways.append(WouldFit(entry.id, self.number_format, size))
        return tuple(way for way in ways if way.memory_bytes <= free and way.memory_bytes < self.memory_bytes)

    @property
    def words(self) -> str:
        """A message about the model's memory; if it does not fit, with the free memory and alternatives."""
        if self.free_bytes is None or self.fits:
            return f"'{self.name}' takes {size_in_words(self.memory_bytes)} of memory in {self.number_format}."
        ways = [way.words for way in self.would_fit] or ["a smaller model"]
        return (
            f"'{self.name}' does not fit into memory: it takes {size_in_words(self.memory_bytes)} in "
            f"{self.number_format}, and {size_in_words(self.free_bytes)} are free on {self.device}: close other "
            f"programs, or choose {' or '.join(ways)}."
        )


def needs_of(
    entry: CatalogEntry,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    released_bytes: int = 0,
) -> ModelNeeds:
    """What a model of the catalog needs on this machine.

    Args:
        entry: the model.
        device, dtype: as for `load_model`.
        released_bytes: memory that will be freed before the model is loaded, such as `ModelHost.idle_bytes()`.

    Raises:
        ModelError: there is no such device or dtype.
    """
    place = as_device(device)
    if is_ready(entry.id):
        download = 0
    elif entry.embedded is not None:
        download = entry.embedded.size_bytes
    else:
        download = round(entry.memory_bfloat16_gib * _GIB)
    return _needs(entry.id, download, _memory_by_format(entry, place.type), place, dtype, released_bytes)


def needs_of_folder(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> ModelNeeds:
    """What the model in a safetensors folder needs on this machine, from the headers of its files.

    Raises:
        OSError, ValueError, KeyError, struct.error: a file is damaged.
    """
    formats = dict.fromkeys([*FORMATS, _name_of(dtype)])
    sizes = {form: round(WORKING_SHARE * weights_bytes(folder, getattr(torch, form))) for form in formats}
    return _needs(name, 0, sizes, device, dtype, 0)


def needs_of_loaded(model: LoadedModel) -> ModelNeeds:
    """What a model in memory needs, and how much would be free without it."""
    numbers = sum(weight.numel() for weight in model.network.parameters())
    sizes = {form: round(WORKING_SHARE * numbers * getattr(torch, form).itemsize) for form in FORMATS}
    return _needs(model.name, 0, sizes, model.device, model.dtype, model.memory_bytes)


@contextlib.contextmanager
def saying_what_fits(model: LoadedModel, doing: str) -> Iterator[None]:
    """Turn running out of memory in the block into `NoRoomError`, which says what to do and what would fit.

    Args:
        doing: what was done, for the message: "answers were generated".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = [way.words for way in needs_of_loaded(model).would_fit] or ["a smaller model"]
        raise NoRoomError(
            f"Memory ran out while {doing} with '{model.name}' on {model.device.type}: ask for shorter answers or for "
            f"fewer at once, close other programs, or choose {' or '.join(ways)}."
        ) from error


def _needs(
    name: str,
    download_bytes: int,
    memory_by_format: Mapping[str, int],
    device: torch.device,
    dtype: str | torch.dtype,
    released_bytes: int,
) -> ModelNeeds:
    free = free_memory_bytes(device)
    form = _name_of(as_dtype(dtype, device))
    sizes = dict(memory_by_format)
    sizes.setdefault(form, sizes["bfloat16"])  # float16 takes as much memory
    return ModelNeeds(name, download_bytes, sizes, form, device.type, None if free is None else free + released_bytes)


def _memory_by_format(entry: CatalogEntry, device_type: str) -> dict[str, int]:
    half = WORKING_SHARE * entry.memory_bfloat16_gib * _GIB
    sizes = {"float32": round(2 * half), "bfloat16": round(half)}
    if device_type == "cuda":  # bitsandbytes
        sizes[FOUR_BIT] = round(WORKING_SHARE * entry.memory_4bit_gib * _GIB)
    return sizes


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

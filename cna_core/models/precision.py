"""Choose the device and the number format of a model, from torch's information or by measurement."""

import functools
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch.nn import functional

from cna_core.cached import ResultCache
from cna_core.errors import ModelError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def choose_device() -> torch.device:
    """CUDA if available, or else Apple's MPS, or else the CPU.

    Under torchrun or accelerate launch, each process takes the GPU with its local rank.
    """
    if torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", "-1"))
        return torch.device("cuda") if number < 0 else torch.device("cuda", number % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def as_device(name: "str | torch.device") -> torch.device:
    """The device with this name; "auto" chooses one.

    Raises:
        ModelError: there is no such device on this machine.
    """
    if isinstance(name, str) and name == "auto":
        return choose_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"There is no device called '{name}': use auto, cuda, mps or cpu.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"This machine has no CUDA device '{name}': use auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("This machine has no MPS device: use auto or cpu.")
    return device


def as_dtype(name: "str | torch.dtype", device: torch.device) -> torch.dtype:
    """The dtype with this name; "auto" chooses one for the device.

    Raises:
        ModelError: models cannot be loaded in it.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        return choose_dtype(device)
    if name not in DTYPES:
        raise ModelError(f"There is no dtype called '{name}': use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if this hardware multiplies it fast, otherwise float32.

    The same rule applies to float16 checkpoints: bfloat16 and float32 cover float16's range, and multiplied neurons
    can overflow in float16.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = instructions_say() if device.type == "cpu" else None
        fast = multiplies_bfloat16_fast(device.type) if known is None else known
    return torch.bfloat16 if fast else torch.float32


def instructions_say() -> bool | None:
    """Whether this CPU multiplies bfloat16 fast according to its instructions; None if only a measurement can tell.

    A CPU with a matrix unit for bfloat16 (AMX) does; one without bfloat16 instructions does not. One CPU in between,
    with AVX-512 BF16 but without AMX, took 1.7 times as long for 512 tokens in bfloat16 as in float32.
    """
    instructions = {name: bool(there) for name, there in torch.cpu.get_capabilities().items() if "bf16" in name}
    if instructions.get("amx_bf16"):
        return True
    return None if any(instructions.values()) or not instructions else False


SLOWDOWN_ALLOWED = 1.25
"""bfloat16 may be this much slower, because it also halves the memory to read, which the measurement does not show."""


@functools.cache
def multiplies_bfloat16_fast(device_type: str) -> bool:
    """Whether bfloat16 is about as fast as float32, both for two decoded rows and for prompts of 512 tokens.

    Measured once for each device and version of torch, in processor time, and saved on disk. Otherwise the result, and
    so the circuits, could differ between processes on a busy machine.
    """
    depends_on = device_type, torch.__version__, torch.get_num_threads(), _hardware(device_type)
    ratios = _MEASURED.find(*depends_on)
    if ratios is None:
        device = torch.device(device_type)
        try:
            ratios = [measure_slowdown(device, rows) for rows in (2, 512)]
        except (RuntimeError, TypeError):  # the device does not support bfloat16
            return False
        _MEASURED.keep(ratios, *depends_on)
    return max(ratios) <= SLOWDOWN_ALLOWED


def _hardware(device_type: str) -> dict[str, object]:
    if device_type == "cpu":
        return {name: value for name, value in torch.cpu.get_capabilities().items() if isinstance(value, bool | str)}
    return {"machine": platform.machine(), "system": platform.platform()}


def _read_ratios(path: Path) -> list[float]:
    return [float(ratio) for ratio in json.loads(path.read_text())]


_MEASURED = ResultCache(
    "measured", ".json", _read_ratios, lambda ratios, path: path.write_text(json.dumps(ratios)), limit_bytes=1 << 20
)
"""The slowdowns of bfloat16, for 2 rows and for 512."""


def measure_slowdown(device: torch.device, rows: int, repeats: int = 5) -> float:
    """The time of bfloat16 divided by that of float32, for `rows` vectors of 896 numbers times three matrices.

    The matrices are 4,864 × 896. The two formats alternate and the best time of each counts, so that other work on the
    machine affects both alike.
    """
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    dtypes = (torch.float32, torch.bfloat16)
    best = dict.fromkeys(dtypes, float("inf"))
    with torch.inference_mode():
        vectors = {dtype: torch.full((rows, 896), 0.01, dtype=dtype, device=device) for dtype in dtypes}
        matrices = {
            dtype: [torch.full((4864, 896), 0.01, dtype=dtype, device=device) for _ in range(3)] for dtype in dtypes
        }
        for _ in range(repeats):
            for dtype in dtypes:
                started = clock()
                for matrix in matrices[dtype]:
                    result = functional.linear(vectors[dtype], matrix)
                float(result[0, 0])  # waits for the device
                best[dtype] = min(best[dtype], clock() - started)
    return best[torch.bfloat16] / best[torch.float32]

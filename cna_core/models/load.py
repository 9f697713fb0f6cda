"""Load a model by name into memory: `load_model`. Sharing a model between requests is in host.py."""

import contextlib
import json
import logging
import shutil
import struct
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from cna_core.errors import ModelError
from cna_core.limits import require_remote_code_allowed
from cna_core.models.catalog import catalog_entry
from cna_core.models.chat_templates import require_usable_template
from cna_core.models.fetch import Source, locate
from cna_core.models.loaded import LoadedModel
from cna_core.models.memory import NoRoomError, is_out_of_memory
from cna_core.models.needs import needs_of, needs_of_folder
from cna_core.models.precision import as_device, as_dtype, choose_device, choose_dtype
from cna_core.models.prepacked import prepack
from cna_core.paths import cache_folder
from cna_core.progress import Report, Stage, raise_if_stopped, tell

__all__ = ["choose_device", "choose_dtype", "load_model"]

QUANTIZATIONS = ("4bit", "8bit")

log = logging.getLogger(__name__)


def load_model(
    name: str,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    quantization: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> LoadedModel:
    """Load a model, in evaluation mode and without gradients. Downloads and converts it first if needed.

    Args:
        name: catalog id, Hub id (optionally with `@revision`), folder, or .gguf file.
        device: "auto" (CUDA, then MPS, then CPU) or a torch device.
        dtype: "auto" (bfloat16 if the device multiplies it fast, else float32), "bfloat16", "float16" or "float32".
        quantization: "4bit" or "8bit", with bitsandbytes.
        trust_remote_code: whether to run Python code that comes with the model.
        device_map: "auto" or a map of modules to devices, with accelerate: several GPUs, CPU and disk.
        max_memory: memory per device for `device_map`, such as {0: "20GiB", "cpu": "60GiB"}.
        progress: reports downloading, converting and loading.
        stop: stops downloading and converting; loading itself cannot be interrupted.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded, converted or loaded.
        StoppedError: stopped.
    """
    require_remote_code_allowed(trust_remote_code)
    place = as_device(device)
    require_quantization(quantization, place)
    number_format = as_dtype(dtype, place)
    alone = device_map is None and quantization is None
    if alone:
        require_memory(name, number_format, place)
    source = locate(name, progress=progress, stop=stop, trust_remote_code=trust_remote_code)
    raise_if_stopped(stop)
    tell(progress, Stage.LOADING, subject=name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "dtype": number_format, "use_safetensors": True}
    if quantization is not None:
        options["quantization_config"] = _bitsandbytes(quantization, number_format)
    if device_map is None:
        options["device_map"] = None if place.type == "cpu" and quantization is None else {"": place}
        if alone:
            require_memory(name, number_format, place, source.folder)
    else:
        options |= {"device_map": device_map, "max_memory": dict(max_memory) if max_memory else None}
        options["offload_folder"] = tempfile.mkdtemp(dir=cache_folder("offload"))
    loaded = _read_or_convert_again(name, source, options, place, progress, stop)
    if "offload_folder" in options:
        weakref.finalize(loaded.network, shutil.rmtree, options["offload_folder"], ignore_errors=True)
    if loaded.device.type == "cpu" and alone:
        tell(progress, Stage.PACKING_WEIGHTS, subject=name)
        prepack(loaded.network)
    raise_if_stopped(stop)
    return loaded


def require_quantization(quantization: str | None, device: torch.device) -> None:
    """Raise ModelError unless this machine can load models with this quantisation."""
    if quantization is None:
        return
    if quantization not in QUANTIZATIONS:
        known = " or ".join(QUANTIZATIONS)
        raise ModelError(f"There is no quantization called '{quantization}': use {known}, or leave it out.")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"Loading in {quantization} needs bitsandbytes, which is not installed: run 'pip install bitsandbytes', or "
            "load without quantization."
        ) from error


def require_memory(name: str, dtype: torch.dtype, device: torch.device, folder: Path | None = None) -> None:
    """Raise NoRoomError if the model does not fit into the device's free memory.

    Args:
        folder: the folder of its files; None, before they are downloaded, uses the catalog's numbers.
    """
    entry = catalog_entry(name)
    try:
        if folder is not None:
            needs = needs_of_folder(name, folder, device, dtype)
        elif entry is not None:
            needs = needs_of(entry, device, dtype)
        else:
            return
    except (OSError, ValueError, KeyError, struct.error):
        return  # damaged files are reported when they are read
    if not needs.fits:
        raise NoRoomError(needs.words)


def _bitsandbytes(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _read_or_convert_again(
    name: str,
    source: Source,
    options: dict[str, Any],
    device: torch.device,
    progress: Report | None,
    stop: threading.Event | None,
) -> LoadedModel:
    """Read the folder. If a converted folder is damaged, delete it and convert again, once."""
    try:
        return _read(name, source, options, device)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        if not source.made_here:
            raise ModelError(_explain(name, error)) from error
        log.warning("The converted model in %s is damaged (%s). It is converted again.", source.folder, error)
    tell(progress, Stage.CONVERTING_AGAIN, subject=name)
    shutil.rmtree(source.folder, ignore_errors=True)
    source = locate(name, progress=progress, stop=stop)
    try:
        return _read(name, source, options, device)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(_explain(name, error)) from error


def _read(name: str, source: Source, options: dict[str, Any], device: torch.device) -> LoadedModel:
    entry = catalog_entry(name)
    is_pinned = entry is not None and entry.embedded is not None
    try:
        with _own_progress_only():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=options["trust_remote_code"])
            if not is_pinned:
                require_usable_template(name, tokenizer)
            network = AutoModelForCausalLM.from_pretrained(source.folder, **options)
    except (SafetensorError, OSError, json.JSONDecodeError, ModelError):
        raise  # a converted folder can be made again
    except Exception as error:  # libraries raise anything about damaged files, tokenizers a plain Exception
        if is_out_of_memory(error):
            raise NoRoomError(_what_would_fit(name, source.folder, device, options)) from error
        raise ModelError(_explain(name, error)) from error
    network.eval().requires_grad_(False)
    _give_padding(tokenizer)
    if options["device_map"] is not None:
        device = _input_device(network, device)
    return LoadedModel(name, source.revision, network, tokenizer, device, foreign_template=not is_pinned)


def _what_would_fit(name: str, folder: Path, device: torch.device, options: dict[str, Any]) -> str:
    """That memory ran out while the model was loaded, and what fits."""
    words = f"Memory ran out while '{name}' was loaded on {device}"
    with contextlib.suppress(OSError, ValueError, KeyError, struct.error):
        ways = needs_of_folder(name, folder, device, options["dtype"]).would_fit
        if ways:
            return f"{words}: close other programs, or choose {' or '.join(way.words for way in ways)}."
    return (
        f"{words}: close other programs, load it in 4bit, spread it with device_map='auto', or choose a smaller model."
    )


@contextlib.contextmanager
def _own_progress_only() -> Iterator[None]:
    """Prevent transformers from drawing its own bars on the terminal."""
    drawing = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawing:
            transformers_logging.enable_progress_bar()


def _input_device(network: PreTrainedModel, device: torch.device) -> torch.device:
    """The device for the inputs of a spread model: that of its embeddings, or `device` if these are offloaded."""
    embeddings = next(network.get_input_embeddings().parameters()).device
    return device if embeddings.type == "meta" else embeddings


def _give_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a padding token, which batches need. Any will do, because padding is masked."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


def _explain(name: str, error: Exception) -> str:
    words = " ".join(str(error).split())
    if "trust_remote_code" in words or "requires you to execute" in words:
        return (
            f"'{name}' comes with its own Python code, which is not run without your consent: read that code, then "
            "pass trust_remote_code=True (--trust-remote-code), or choose another model."
        )
    if isinstance(error, ImportError):
        return f"'{name}' needs a package that is not installed ({words[:160]}): install it, or choose another model."
    if "backend tokenizer" in words or "Can't load tokenizer" in words:
        return f"'{name}' has no tokenizer that can be read: save it in the model's folder, or choose another model."
    if "model type" in words or "model_type" in words or "Unrecognized" in words:
        return f"transformers does not know the architecture of '{name}': choose another model, or update transformers."
    return (
        f"'{name}' could not be loaded because its files are damaged or of an unknown kind ({type(error).__name__}: "
        f"{words[:160]}): download it again, or choose another model."
    )

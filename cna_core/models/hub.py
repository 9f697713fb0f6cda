"""Download single files and whole repositories from the Hub, with huggingface_hub in a child process.

huggingface_hub cannot be interrupted between its chunks, but a child process can be ended; a later download resumes.
`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HOME` and `HF_TOKEN` apply as usual. This module does not use the catalog.
"""

import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cna_core.errors import ModelError
from cna_core.models.child import ChildFailedError, report_from_child, run_child
from cna_core.models.disk import DISK_FULL, hash_file, require_free_space
from cna_core.progress import BYTES, Report, Stage, tell

PROBE_SECONDS = 3.0
ABSENCE_SECONDS = 60.0
"""How long a hub that did not answer counts as unreachable. A hub that answered counts as reachable."""

WHOLE_MODEL = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
SMALL_FILES = re.compile(r"[^/]*\.(json|txt|model|jinja|tiktoken)|chat_templates?/[^/]*\.jinja")
CODE_FILES = re.compile(r"(?!.*\.\.).*\.py")


class NoHubError(ModelError):
    """The model hub does not answer. A package index or the cache may have the file."""

    code = "hub-unreachable"


@dataclass(frozen=True)
class DataFile:
    """A data set's file on this machine, and its commit."""

    path: Path
    revision: str


@dataclass(frozen=True)
class Snapshot:
    """A repository's files on this machine, and their commit."""

    folder: Path
    revision: str


def endpoint() -> str:
    """The hub's address: `$HF_ENDPOINT`, or else the default of huggingface_hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


_answers: dict[str, tuple[bool, float]] = {}


def hub_answers() -> bool:
    """Whether the hub can be reached. Checked once with a short timeout, and remembered.

    huggingface_hub itself would try for half a minute for each file.
    """
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    address = endpoint()
    answered, asked_at = _answers.get(address, (False, -ABSENCE_SECONDS))
    if not answered and time.monotonic() - asked_at >= ABSENCE_SECONDS:
        answered = _probe(address)
        _answers[address] = (answered, time.monotonic())
    return answered


def _probe(address: str) -> bool:
    request = urllib.request.Request(f"{address}/api/models?limit=1", headers={"User-Agent": "refusal-gate-explorer"})
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500 and error.code != 407  # the hub is there, but rejects the request
    except (OSError, ValueError):
        return False


def download_file(
    hub_id: str,
    revision: str | None,
    name: str,
    folder: Path,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Download one file of a repository to `folder`. The caller must check its hash.

    Raises:
        NoHubError, ModelError, StoppedError.
    """
    return _download_single("model", hub_id, revision, name, folder, progress, stop).path


def download_data_file(
    hub_id: str,
    revision: str | None,
    name: str,
    folder: Path,
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> DataFile:
    """Download one file of a data set to `folder`, and return it with its commit. The caller must check its hash.

    Args:
        revision: a commit; None takes the newest one of the main branch.

    Raises:
        NoHubError, ModelError, StoppedError.
    """
    return _download_single("dataset", hub_id, revision, name, folder, progress, stop)


def _download_single(
    kind: str,
    hub_id: str,
    revision: str | None,
    name: str,
    folder: Path,
    progress: Report | None,
    stop: threading.Event | None,
) -> DataFile:
    if not hub_answers():
        raise NoHubError(f"the model hub at {endpoint()} does not answer")
    found = _in_child("file", hub_id, revision, progress, stop, kind=kind, name=name, folder=str(folder))
    return DataFile(Path(found["path"]), found["revision"])


def download_repository(
    hub_id: str,
    revision: str | None = None,
    *,
    with_code: bool = False,
    progress: Report | None = None,
    stop: threading.Event | None = None,
) -> Snapshot:
    """Download a model's safetensors, configuration and tokenizer to huggingface_hub's own cache.

    If the hub cannot be reached, the files in the cache are used.

    Args:
        with_code: also download the repository's Python files; only if the user said that they trust them.

    Raises:
        ModelError: there is no such model, it is gated, it has only pickled weights, the hub cannot be reached, the
            disk is full, or a file's hash is wrong.
        StoppedError: stopped; a later run resumes.
    """
    if hub_answers():
        try:
            found = _in_child("repository", hub_id, revision, progress, stop, with_code=with_code)
            return Snapshot(Path(found["folder"]), found["revision"])
        except ModelError:
            _answers.pop(endpoint(), None)
            if hub_answers():
                raise
    found = _in_child("cached", hub_id, revision, progress, stop)
    if found is None:
        raise ModelError(
            f"'{hub_id}' is not on this machine, and the model hub at {endpoint()} does not answer: connect to the "
            "network, or choose a model that is on this machine, a folder, or a .gguf file.",
            code=NoHubError.code,
        )
    return Snapshot(Path(found["folder"]), found["revision"])


def cached_folder(hub_id: str) -> Path | None:
    """The folder of the repository's main branch in huggingface_hub's cache, maybe incomplete; or None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _in_child(
    work: str,
    hub_id: str,
    revision: str | None,
    progress: Report | None,
    stop: threading.Event | None,
    **options: Any,
) -> Any:
    environment = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if work == "cached":
        environment["HF_HUB_OFFLINE"] = "1"
    task = json.dumps({"hub_id": hub_id, "revision": revision, **options})
    try:
        return run_child([__name__, work, task], progress=progress, stop=stop, environment=environment)
    except ChildFailedError as failure:
        last_line = failure.tail.splitlines()[-1] if failure.tail else "no reason given"
        raise ModelError(f"'{hub_id}' could not be downloaded ({last_line[:160]}): try again.") from failure


# --- In the child process ---------------------------------------------------------------------------------------------


def main(work: str, task: dict[str, Any], progress: Report | None) -> Any:
    """Run one task, and turn the hub's errors into messages for users."""
    from huggingface_hub import errors

    hub_id, kind = task["hub_id"], task.get("kind", "model")
    thing, page = ("data set", f"datasets/{hub_id}") if kind == "dataset" else ("model", hub_id)
    works: dict[str, Callable[[dict[str, Any], Report | None], Any]] = {
        "file": _download_file,
        "repository": _download_repository,
        "cached": _find_in_cache,
    }
    try:
        return works[work](task, progress)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"'{hub_id}' is gated: ask for access on its page at {endpoint()}/{page}, then log in with "
            "'hf auth login' or set HF_TOKEN.",
            code=f"{kind}-gated",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"There is no {thing} '{hub_id}' on the hub, or it is private: check the name, or log in with "
            "'hf auth login'.",
            code=f"{kind}-not-found",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"'{hub_id}' has no revision '{task['revision']}': leave it out, or choose another."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(_interrupted(hub_id, "the hub stopped answering")) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"'{hub_id}' has no file '{task.get('name')}': choose another {thing}.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise ModelError(f"The hub answered {status} for '{hub_id}': try again later.") from error
    except OSError as error:
        if error.errno == 28:
            raise ModelError(
                f"The disk became full while '{hub_id}' was downloaded: free some space.", code=DISK_FULL
            ) from error
        raise ModelError(_interrupted(hub_id, type(error).__name__)) from error
    except errors.HTTPError as error:  # the connection itself failed
        raise ModelError(_interrupted(hub_id, "the hub stopped answering")) from error


def _interrupted(hub_id: str, reason: str) -> str:
    return f"The download of '{hub_id}' was interrupted ({reason}): try again; it resumes where it stopped."


def _download_file(task: dict[str, Any], progress: Report | None) -> dict[str, str]:
    from huggingface_hub import hf_hub_download

    hub_id, kind, name = task["hub_id"], task.get("kind", "model"), task["name"]
    info = _describe(hub_id, task["revision"], kind)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    require_free_space(folder, sizes.get(name, 0), f"downloading {name}")
    bar = _bar(lambda done: tell(progress, Stage.FETCHING, done, sizes.get(name, 0), BYTES, subject=name))
    path = hf_hub_download(
        hub_id, name, repo_type=kind, revision=info.sha, local_dir=folder, endpoint=endpoint(), tqdm_class=bar
    )
    return {"path": str(path), "revision": info.sha}


def _download_repository(task: dict[str, Any], progress: Report | None) -> dict[str, str]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    hub_id = task["hub_id"]
    info = _describe(hub_id, task["revision"])
    files = {file.rfilename: file for file in info.siblings or []}
    wanted = choose_files(hub_id, list(files), with_code=task["with_code"])
    missing = [name for name in wanted if not _is_here(hub_id, name, info.sha, files[name].size)]
    total = sum(files[name].size or 0 for name in missing)
    Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
    require_free_space(Path(HF_HUB_CACHE), total, f"downloading {hub_id}")
    folder, done = Path(HF_HUB_CACHE), 0

    def arrived(more: int) -> None:
        tell(progress, Stage.FETCHING, done + more, total, BYTES, subject=hub_id)

    for name in wanted:
        # Asking for the first file by branch lets huggingface_hub store the branch's commit for use without network.
        revision = task["revision"] if name == wanted[0] else info.sha
        path = Path(
            hf_hub_download(
                hub_id,
                name,
                revision=revision,
                endpoint=endpoint(),
                tqdm_class=_bar(arrived),
                force_download=name in missing and _cached(hub_id, name, info.sha) is not None,  # damaged here
            )
        )
        folder = path.parents[name.count("/")]
        if name in missing:
            _require_hash(hub_id, name, path, files[name])
            done += files[name].size or 0
            arrived(0)
    return {"folder": str(folder), "revision": info.sha}


def choose_files(hub_id: str, names: list[str], *, with_code: bool) -> list[str]:
    """The files of a repository to download, config.json and small files first, to notice a gated one early.

    Raises:
        ModelError: it has no model that can be loaded safely.
    """
    weights = [name for name in names if WHOLE_MODEL.fullmatch(name)]
    weights = weights or [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if not weights and any(name.endswith(".gguf") for name in names):
        raise ModelError(f"'{hub_id}' has only GGUF files: download the one you want, and use its path.")
    if not weights and any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise ModelError(
            f"'{hub_id}' has only pickled weights, which can run code when they are opened: choose a model or revision "
            "with safetensors."
        )
    if not weights or "config.json" not in names:
        raise ModelError(f"'{hub_id}' has no language model (config.json and safetensors): check the name.")
    small = sorted((name for name in names if SMALL_FILES.fullmatch(name)), key=lambda name: name != "config.json")
    code = [name for name in names if with_code and CODE_FILES.fullmatch(name)]
    return small + code + sorted(weights)


def _describe(hub_id: str, revision: str | None, kind: str = "model") -> Any:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    return api.repo_info(hub_id, repo_type=kind, revision=revision, files_metadata=True, timeout=20)


def _cached(hub_id: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub_id, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _is_here(hub_id: str, name: str, revision: str, size: int | None) -> bool:
    """Whether the file is in the cache with the size that the hub states."""
    path = _cached(hub_id, name, revision)
    return path is not None and path.is_file() and size in (None, path.stat().st_size)


def _require_hash(hub_id: str, name: str, path: Path, described: Any) -> None:
    promised = getattr(described.lfs, "sha256", None)
    if promised and hash_file(path) != promised:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ModelError(f"'{name}' of '{hub_id}' arrived with a wrong SHA-256: try again.")


def _find_in_cache(task: dict[str, Any], progress: Report | None) -> dict[str, str] | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(task["hub_id"], revision=task["revision"], local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return {"folder": str(folder), "revision": folder.name} if (folder / "config.json").exists() else None


def _bar(arrived: Callable[[int], None]) -> Any:
    """A tqdm class for huggingface_hub that reports the bytes of its file instead of drawing a bar."""
    from tqdm import tqdm

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            self.described = str(options.get("desc", ""))
            self.arrived = int(options.get("initial") or 0)
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if "reconstructing" not in self.described:
                self.arrived += int(n or 0)
                arrived(self.arrived)
            return None

    return Reporting


if __name__ == "__main__":
    report_from_child(lambda progress: main(sys.argv[1], json.loads(sys.argv[2]), progress))

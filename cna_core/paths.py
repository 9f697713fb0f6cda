"""The cache folder and its contents, and writing files so that an incomplete file is never taken for a complete one."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from cna_core.errors import StorageError
from cna_core.shown import shown

_PACKAGE = Path(__file__).resolve().parent

APP = _PACKAGE / "_app" if (_PACKAGE / "_app").is_dir() else _PACKAGE.parent
"""The folder of the web app (`app.py`, `pages/`, `assets/`): inside the package in a wheel, around it in a checkout."""

ASSETS = APP / "assets"
"""The project's own data files: catalog, prompts, patterns, questions."""


def path_named(name: str | Path) -> Path:
    """The path that a user names; `~` is the home folder. Whether something is there is for the caller to find out.

    Raises:
        StorageError: it cannot be a path: too long, with a NUL, or in the home of nobody.
    """
    try:
        path = Path(name).expanduser()
        path.stat()
    except (ValueError, RuntimeError) as error:
        raise StorageError(f"'{shown(name, 200)}' is no path of this machine ({error}): check it.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise StorageError(f"'{shown(name, 200)}' is no path of this machine ({_reason(error)}).", error) from error
    return path


def cache_folder(*parts: str, create: bool = True) -> Path:
    """The cache folder, or a folder in it.

    The cache folder is `$CNA_HOME` if set, or else the platform's cache folder for this project.

    Args:
        create: whether to create it if it is missing. Pass False where it is only looked at: it may be read-only.

    Raises:
        StorageError: it is missing and cannot be created.
    """
    home = os.environ.get("CNA_HOME") or platformdirs.user_cache_dir("refusal-gate-explorer")
    try:
        folder = Path(home).expanduser().joinpath(*parts)
        if create:
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home folder, as in ~nobody
        said = error if isinstance(error, OSError) else OSError(errno.ENOENT, str(error))
        raise StorageError(
            f"The cache folder {home} cannot be used ({_reason(said)}): set CNA_HOME to a folder that can be written.",
            said,
        ) from error
    return folder


CANNOT_WRITE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
    | {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
)
"""Errors of the system that say that a file cannot be written."""


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` for a file or folder. It is renamed to `target` if the block succeeds.

    Args:
        target: the final file or folder. An existing one is replaced.

    Raises:
        StorageError: it cannot be written; an existing one stays as it was.
    """
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        draft = workshop / target.name
        with storing(target):
            yield draft
            if target.is_dir():
                target.replace(workshop / "replaced")  # removed in one step, and never half
            draft.replace(target)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@contextlib.contextmanager
def storing(target: Path) -> Iterator[None]:
    """Turn errors of the system that say that `target` cannot be written into `StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno == errno.ENOENT and not target.parent.is_dir():
            raise StorageError(
                f"{target.parent} was deleted while {target.name} was being written: try again.", error
            ) from error
        if error.errno in CANNOT_WRITE:
            raise StorageError(
                f"{target} cannot be written ({_reason(error)}): free some space, or choose another folder.", error
            ) from error
        raise


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# --- What is in the cache folder --------------------------------------------------------------------------------------

OWN_WORK = frozenset({"circuits", "pins", "prompts", "runs"})
"""Folders of the cache that hold users' own work; trimming never removes it."""

ABANDONED_SECONDS = 3600.0
"""A draft that has not been written to for this long belongs to a process that was killed."""


@dataclass(frozen=True)
class CacheEntry:
    """One file or folder of the cache.

    Args:
        kind: the folder of the cache that it is in: "models", "downloads", "activations", …
        path: its absolute path.
        size_bytes: its size, including contents.
        used_at: when it was last written or marked as used, in seconds since the epoch.
    """

    kind: str
    path: Path
    size_bytes: int
    used_at: float

    @property
    def unfinished(self) -> bool:
        """Whether it is a draft, of work that is running or was killed."""
        return self.path.name.startswith(".")

    @property
    def can_be_made_again(self) -> bool:
        """Whether trimming may remove it."""
        if self.unfinished:
            # Also one from the future: the clock was set back since.
            return abs(time.time() - self.used_at) > ABANDONED_SECONDS
        return self.kind not in OWN_WORK


def cache_entries(kind: str | None = None) -> list[CacheEntry]:
    """Everything in the cache folder except lock files, largest first.

    Args:
        kind: only this folder of the cache.
    """
    entries = []
    home = cache_folder(create=False)
    for folder in home.glob("*") if kind is None else [home / kind]:
        for path in folder.glob("*"):
            entry = _measure(folder.name, path)
            if entry is not None and path.suffix != ".lock":
                entries.append(entry)
    return sorted(entries, key=lambda entry: -entry.size_bytes)


def trim_cache(keep_bytes: int, kind: str | None = None, spare: Path | None = None) -> list[CacheEntry]:
    """Remove abandoned drafts, then the least recently used entries, until the cache takes at most `keep_bytes`.

    Users' own work (circuits, prompts, runs) is never removed.

    Args:
        keep_bytes: the size to keep.
        kind: trim only this folder of the cache.
        spare: an entry that is not removed, even if it is larger than `keep_bytes`.

    Returns:
        The removed entries.
    """
    entries = sorted(cache_entries(kind), key=lambda entry: (not entry.unfinished, entry.used_at))
    size_bytes = sum(entry.size_bytes for entry in entries)
    removed = []
    for entry in entries:
        if entry.path != spare and entry.can_be_made_again and (entry.unfinished or size_bytes > keep_bytes):
            _remove(entry.path)
            size_bytes -= entry.size_bytes
            removed.append(entry)
    return removed


def mark_used(path: Path) -> None:
    """Record that this entry of the cache was used now. Does nothing if the cache is read-only."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _measure(kind: str, path: Path) -> CacheEntry | None:
    try:
        used_at = path.stat().st_mtime
        inside = [file.stat() for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path.stat()]
    except OSError:  # removed meanwhile by another process, or a link that leads nowhere
        return None
    newest = max((facts.st_mtime for facts in inside), default=used_at)
    return CacheEntry(kind, path, sum(facts.st_size for facts in inside), max(used_at, newest))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

"""Disk helpers for downloads and conversions: free space, hashes, and a lock for each target file."""

import contextlib
import glob
import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cna_core.errors import ModelError
from cna_core.paths import storing
from cna_core.progress import BYTES, Report, Stage, raise_if_stopped, tell
from cna_core.progress_words import size_in_words

CHUNK_BYTES = 4 << 20
DISK_FULL = "disk-full"
"""Error code for a full disk: another source of the same file would not help."""
SPARE_BYTES = 200 << 20
"""Space to leave free on the disk, so that the machine keeps working."""


def require_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise ModelError unless the disk of `folder` has room for `needed_bytes` and `SPARE_BYTES`."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise ModelError(
            f"The disk is full: {purpose} needs {size_in_words(needed_bytes + SPARE_BYTES)}, but only "
            f"{size_in_words(free)} are free in {folder}, so free some space, or set CNA_HOME to a folder on a larger "
            "disk.",
            code=DISK_FULL,
        )


def hash_file(path: Path, *, progress: Report | None = None, stop: threading.Event | None = None) -> str:
    """The hexadecimal SHA-256 of a file. Takes about a second per gigabyte."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            raise_if_stopped(stop)
            digest.update(chunk)
            done += len(chunk)
            tell(progress, Stage.CHECKING_FILE, done, total, BYTES, subject=path.name)
    return digest.hexdigest()


@contextlib.contextmanager
def one_at_a_time(
    target: Path, *, progress: Report | None = None, stop: threading.Event | None = None
) -> Iterator[None]:
    """Hold a lock on making `target` that applies to all processes. Waiting is reported and can be stopped.

    The operating system releases the lock when the process ends, so a killed process blocks nobody.

    Raises:
        StorageError: the folder cannot be written.
        StoppedError: stopped while waiting.
    """
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.parent / f".{target.name}.lock", thread_local=False)
    while True:
        raise_if_stopped(stop)
        try:
            with storing(target):
                lock.acquire(timeout=0.2)
            break
        except Timeout:
            tell(progress, Stage.WAITING_FOR_FILE, subject=target.name)
    try:
        _sweep(target)
        yield
    finally:
        lock.release()


def _sweep(target: Path) -> None:
    """Remove drafts that killed processes left beside the target: hidden folders whose names begin with its name."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)

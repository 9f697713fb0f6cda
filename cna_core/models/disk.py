"""What fetching and converting need of the disk: room, hashes, and one worker at a time on one target.

Knows nothing of models.
"""

import contextlib
import glob
import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cna_core.errors import ModelError
from cna_core.progress import Progress, raise_if_stopped, silent

CHUNK_BYTES = 4 << 20
SPARE_BYTES = 200 << 20
"""Left free on the disk beside what a job needs, so that the machine goes on working."""


def in_words(size_bytes: float) -> str:
    """A size as people say it: "93 MB", "1.3 GB" (decimal, as download pages count)."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def require_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise ModelError unless the disk of `folder` has room for `needed_bytes` and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise ModelError(
            f"The disk is full: {purpose} needs {in_words(needed_bytes + SPARE_BYTES)} and {in_words(free)} are free "
            f"in {folder}, so free some space, or set CNA_HOME to a folder on a larger disk."
        )


def hash_file(
    path: Path, *, progress: Progress = silent, stop: threading.Event | None = None, words: str = "Checking the file"
) -> str:
    """Hexadecimal SHA-256 of a file; about a second for a gigabyte."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            raise_if_stopped(stop)
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, f"{words}: {in_words(done)} of {in_words(total)}")
    return digest.hexdigest()


@contextlib.contextmanager
def one_at_a_time(target: Path, *, progress: Progress = silent, stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the only right, in this and every other process, to make `target`; waiting is told and can be stopped.

    The operating system drops the right with its process, so that a killed one blocks nobody.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.parent / f".{target.name}.lock", thread_local=False)
    while True:
        raise_if_stopped(stop)
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            progress(0, 0, f"Waiting for another process that is making {target.name}")
    try:
        _sweep(target)
        yield
    finally:
        lock.release()


def _sweep(target: Path) -> None:
    """Remove what killed workers left beside the target: unfinished drafts are hidden and begin with its name."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)

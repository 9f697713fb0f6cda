"""Where files live: the cache folder, and how to write into it so that nothing half-made is ever taken for whole."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""The project's own data files: catalog, prompts, patterns, questions."""


def cache_folder(*parts: str) -> Path:
    """The cache folder, or a folder in it, created when missing.

    `$CNA_HOME` where it is set, else the platform's cache folder for this project.
    """
    home = os.environ.get("CNA_HOME")
    folder = Path(home).expanduser() if home else Path(platformdirs.user_cache_dir("refusal-gate-explorer"))
    folder = folder.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a folder to; it becomes `target` only if the block succeeds.

    Args:
        target: the file or folder to be. An existing one is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        draft = workshop / target.name
        yield draft
        if target.is_dir():
            shutil.rmtree(target)
        draft.replace(target)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)

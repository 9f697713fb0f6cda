"""A cache folder of each test's own, no hub, and a watch on everything that is written."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.stand_in import use_hub

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
}
_OTHERS = ("__pycache__", ".hypothesis", ".pytest_cache", "/dev/", "/proc/")
"""What Python and the tests themselves write."""

_seen: list[str] | None = None


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event == "open" and isinstance(given[0], str | bytes) and isinstance(given[2], int) and given[2] & _WRITES:
        if given[0] != tempfile.gettempdir():  # what a child process said is kept in a file without a name
            _seen.append(os.fsdecode(given[0]))
    elif event in ("os.remove", "os.rmdir") and given[1] != -1:
        return  # inside a folder that shutil.rmtree was asked to remove, which is an event of its own
    elif event in _CHANGES and isinstance(given[0], str | bytes | os.PathLike):
        _seen.append(os.fsdecode(given[1] if event in ("os.rename", "os.link", "os.symlink") else given[0]))


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def writes_only_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has an empty cache folder, and fails if anything is written elsewhere while it runs."""
    global _seen
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("CNA_HOME", str(tmp_path / "cache"))
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")
    _seen = []
    try:
        yield tmp_path / "cache"
    finally:
        seen, _seen = _seen, None
    inside = (str(tmp_path / "cache"), str(tmp_path / "hub-cache"), str(tmp_path / "made"))
    elsewhere = {path for path in seen if not str(Path(path).absolute()).startswith(inside)}
    elsewhere = {path for path in elsewhere if not any(part in path for part in _OTHERS)}
    assert elsewhere == set()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Path]:
    """A folder that a test may write its inputs to."""
    (tmp_path / "made").mkdir()
    yield tmp_path / "made"

import os
import time
from pathlib import Path

import pytest

from cna_core import paths
from cna_core.paths import cache_entries, cache_folder, mark_used, trim_cache, written_beside


def put(kind: str, name: str, size_bytes: int, age_seconds: float = 0.0) -> Path:
    path = cache_folder(kind) / name
    path.write_bytes(b"x" * size_bytes)
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def put_folder(kind: str, name: str, size_bytes: int, age_seconds: float = 0.0) -> Path:
    folder = cache_folder(kind, name)
    file = put(f"{kind}/{name}", "model.safetensors", size_bytes, age_seconds)
    os.utime(folder, (file.stat().st_mtime, file.stat().st_mtime))
    return folder


def test_entries_are_files_and_folders_with_their_sizes_largest_first(empty_cache: Path) -> None:
    put("activations", "a.safetensors", 10)
    put_folder("models", "gguf-1", 300)
    (cache_folder("models") / ".gguf-1.lock").touch()
    assert [(entry.kind, entry.path.name, entry.size_bytes) for entry in cache_entries()] == [
        ("models", "gguf-1", 300),
        ("activations", "a.safetensors", 10),
    ]


def test_an_empty_cache_has_no_entries(empty_cache: Path) -> None:
    assert cache_entries() == []
    assert trim_cache(0) == []


def test_trimming_removes_the_longest_unused_until_it_fits(empty_cache: Path) -> None:
    old, middle, new = (put("activations", name, 100, age) for name, age in (("o", 30), ("m", 20), ("n", 10)))
    assert [entry.path for entry in trim_cache(150)] == [old, middle]
    assert new.exists()
    assert trim_cache(150) == []


def test_a_mark_of_use_saves_an_old_entry(empty_cache: Path) -> None:
    old, newer = put_folder("models", "old", 100, 30), put_folder("models", "newer", 100, 20)
    mark_used(old)
    assert [entry.path for entry in trim_cache(100)] == [newer]


def test_what_people_made_is_never_trimmed(empty_cache: Path) -> None:
    for kind in paths.OWN_WORK:
        put(kind, "mine.json", 1000, 10**6)
    assert trim_cache(0) == []
    assert len(cache_entries()) == len(paths.OWN_WORK)


def test_abandoned_drafts_go_and_fresh_ones_stay(empty_cache: Path) -> None:
    abandoned = put_folder("models", ".gguf-1.abc", 100, paths.ABANDONED_SECONDS + 60)
    fresh = put_folder("models", ".gguf-2.def", 100)
    assert [entry.path for entry in trim_cache(10**9)] == [abandoned]
    assert fresh.exists()
    assert trim_cache(0) == []


@pytest.mark.parametrize("folder", [False, True])
def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "target"
    with written_beside(target) as draft:
        _write(draft, "old", folder)
    with pytest.raises(ZeroDivisionError), written_beside(target) as draft:
        _write(draft, "new", folder)
        raise ZeroDivisionError
    assert _read(target, folder) == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_written_beside_replaces_the_old(tmp_path: Path, folder: bool) -> None:
    for content in ("old", "new"):
        with written_beside(tmp_path / "target") as draft:
            _write(draft, content, folder)
    assert _read(tmp_path / "target", folder) == "new"


def _write(path: Path, content: str, folder: bool) -> None:
    if folder:
        path.mkdir()
        path = path / "file"
    path.write_text(content)


def _read(path: Path, folder: bool) -> str:
    return (path / "file" if folder else path).read_text()

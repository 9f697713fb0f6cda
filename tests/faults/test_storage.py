"""The disk is full, the cache folder is read-only or deleted, two processes share it, the clock is set back."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cna_core import paths
from cna_core.circuits import library
from cna_core.errors import CnaError, StorageError
from cna_core.evaluation.journal import Journal, stored_runs
from cna_core.paths import cache_entries, cache_folder, trim_cache
from tests.circuits.samples import circuit_of
from tests.evaluation.sweeping import small_sweep
from tests.faults import stages
from tests.faults.stages import Found, run_apart, same

NEEDS_NO_DISK = {"load", "capture", "effect"}
"""Stages whose results are only kept if that is possible."""
DISK_BYTES = 1 << 20


@pytest.fixture
def own_disk(empty_cache: Path) -> Iterator[Path]:
    """A small disk of its own for the cache folder, which only root may mount."""
    empty_cache.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(empty_cache)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a disk, and not in every container")
    try:
        yield empty_cache
    finally:
        subprocess.run(["umount", "--lazy", str(empty_cache)], check=True)


def tried(stage: str, material: Path, largest_file_bytes: int | None = None) -> Found | None:
    """What the stage finds while it is starved; None if it ends with one sentence."""
    ended = run_apart(stage, material, largest_file_bytes=largest_file_bytes).ended()
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said
    if ended.found is None:
        assert len(ended.said) > 20 and "\n" not in ended.said, ended.said
    return ended.found


@pytest.mark.parametrize("stage", [stage for stage in stages.STAGES if stage != "download"])
@pytest.mark.parametrize("largest_file_bytes", [0, 700])
def test_a_write_that_fails_is_said_and_the_next_try_works(
    stage: str, largest_file_bytes: int, material: Path, empty_cache: Path, undisturbed: dict[str, Found]
) -> None:
    found = tried(stage, material, largest_file_bytes)
    assert (found is not None and same(found, undisturbed[stage])) == (stage in NEEDS_NO_DISK)
    assert [path for path in empty_cache.rglob(".*") if path.is_dir()] == []
    again = tried(stage, material)
    assert again is not None and same(again, undisturbed[stage])


@pytest.mark.parametrize("free_bytes", [0, 4096, 20_480])
def test_a_disk_that_is_really_full_is_said_and_the_next_try_works(
    free_bytes: int, own_disk: Path, material: Path, undisturbed: dict[str, Found]
) -> None:
    for stage in ("convert", "capture", "effect", "sweep", "circuit"):
        free = shutil.disk_usage(own_disk).free
        (own_disk / "filler").write_bytes(bytes(max(0, free - free_bytes)))
        found = tried(stage, material)
        assert found is None or same(found, undisturbed[stage])
        (own_disk / "filler").unlink()
        again = tried(stage, material)
        assert again is not None and same(again, undisturbed[stage])


def test_a_download_that_fills_the_disk_is_said_and_the_next_try_works(
    material: Path, undisturbed: dict[str, Found]
) -> None:
    assert tried("download", material, 700) is None
    again = tried("download", material)
    assert again is not None and same(again, undisturbed["download"])


def test_a_circuit_that_cannot_be_saved_leaves_the_old_one(material: Path, empty_cache: Path) -> None:
    old = circuit_of([(0, 1), (1, 2)])
    library.save_circuit(old, "mine")
    assert tried("circuit", material, 100) is None
    assert library.load_circuit("mine").sha256 == old.sha256


def test_a_sweep_on_a_full_disk_keeps_the_batches_that_were_finished(material: Path, empty_cache: Path) -> None:
    whole = small_sweep(stages.model())
    [run] = stored_runs()
    journal = Journal(run.identity).folder / "journal-0.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    shutil.rmtree(empty_cache / "runs")
    assert tried("sweep", material, sum(map(len, lines[:3])) + 40) is None  # full in the middle of the fourth line
    [run] = stored_runs()
    assert len(Journal(run.identity).read()) >= 1
    assert small_sweep(stages.model()).answers == whole.answers


@pytest.fixture
def read_only(empty_cache: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A cache folder in which nothing can be written; root needs a mounted one."""
    if os.geteuid() == 0:
        folder: Path = request.getfixturevalue("own_disk")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
        return
    empty_cache.mkdir()
    empty_cache.chmod(0o555)
    yield empty_cache
    empty_cache.chmod(0o755)


def test_a_read_only_cache_folder_is_said_where_it_must_be_written_and_ignored_where_not(
    read_only: Path, material: Path, undisturbed: dict[str, Found]
) -> None:
    for stage in stages.STAGES:
        found = tried(stage, material)
        if stage in NEEDS_NO_DISK | {"download"}:
            assert found is not None and same(found, undisturbed[stage])
        else:
            assert found is None
    assert library.saved_circuits() == [] and stored_runs() == [] and cache_entries() == []


def page() -> AppTest:
    return AppTest.from_file(str(paths.APP / "app.py"), default_timeout=60).run()


def test_the_app_opens_with_a_read_only_cache_folder(read_only: Path) -> None:
    app = page()
    assert not app.exception
    assert app.title[0].value == "Where does this model's refusal live?"


def test_the_app_goes_on_when_its_cache_folder_is_deleted(empty_cache: Path) -> None:
    app = page()
    shutil.rmtree(empty_cache, ignore_errors=True)
    app.run()
    assert not app.exception


def test_a_sweep_whose_folder_is_deleted_says_so_and_can_be_started_again(empty_cache: Path) -> None:
    def delete(_run: object) -> None:
        shutil.rmtree(empty_cache)

    with pytest.raises(CnaError, match=r"deleted|no run"):
        small_sweep(stages.model(), partial=delete)
    assert small_sweep(stages.model()).finished


def test_what_needs_the_cache_folder_makes_it_again(material: Path, undisturbed: dict[str, Found]) -> None:
    for stage in ("capture", "effect", "circuit"):
        stages.STAGES[stage](material)
        shutil.rmtree(cache_folder())
        assert same(stages.STAGES[stage](material), undisturbed[stage])


@pytest.mark.parametrize("stage", ["convert", "capture", "sweep", "circuit"])
def test_two_processes_on_one_cache_folder_find_the_same(
    stage: str, material: Path, undisturbed: dict[str, Found]
) -> None:
    workers = [run_apart(stage, material) for _ in range(2)]
    for worker in workers:
        ended = worker.ended()
        assert ended.found is not None and same(ended.found, undisturbed[stage]), ended.said
    [run] = stored_runs() or [None]
    assert (run is not None and run.finished) == (stage == "sweep")


def test_lines_that_two_processes_write_to_one_journal_stay_whole(empty_cache: Path) -> None:
    run = small_sweep(stages.model())
    journal = Journal(stored_runs()[0].identity)
    records = [record for part in journal.read().values() for record in part] * 20
    journal.clear()
    threads = [
        threading.Thread(target=lambda first=first: [journal.append(first + n, records) for n in range(10)])
        for first in (0, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(journal.read()) == list(range(20)) and run.finished


def test_a_clock_that_is_set_back_changes_no_result(
    material: Path, undisturbed: dict[str, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()

    def earlier() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr(time, "time", earlier)
    for stage in ("capture", "effect", "sweep", "circuit"):
        assert same(stages.STAGES[stage](material), undisturbed[stage])


def test_drafts_from_before_the_clock_was_set_back_are_abandoned_too(empty_cache: Path) -> None:
    for name, age in (("now", 0.0), ("tomorrow", -2 * paths.ABANDONED_SECONDS)):
        draft = cache_folder("models", f".model.{name}")
        os.utime(draft, (time.time() - age, time.time() - age))
    assert [entry.path.name for entry in trim_cache(1 << 30)] == [".model.tomorrow"]


def test_a_storage_error_is_a_sentence_for_people_and_an_error_of_the_system_for_code() -> None:
    error = StorageError("The disk is full: free some space.", OSError(28, "No space left on device"))
    assert (str(error), error.errno, error.strerror) == (
        "The disk is full: free some space.",
        28,
        "No space left on device",
    )
    assert isinstance(error, OSError) and isinstance(error, CnaError)

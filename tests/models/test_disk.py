import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models.disk import hash_file, one_at_a_time, require_free_space
from cna_core.progress import Progress, Stage


def test_a_full_disk_is_told_with_what_is_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 300_000_000))
    with pytest.raises(
        ModelError, match=r"disk is full: downloading x needs 1\.2 GB, but only 300 MB are free"
    ) as caught:
        require_free_space(tmp_path, 1_000_000_000, "downloading x")
    assert caught.value.code == "disk-full"


def test_the_hash_is_sha256_and_progress_ends_at_the_size(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"refusal" * 1_000_000)
    told: list[Progress] = []
    assert hash_file(file, progress=told.append) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told[-1] == Progress(Stage.CHECKING_FILE, 7_000_000, 7_000_000, "bytes", subject="file")


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        hash_file(tmp_path / "file", stop=stop)


def test_a_second_worker_waits_and_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        stop.set()

    second = one_at_a_time(tmp_path / "model", progress=tell, stop=stop)
    with one_at_a_time(tmp_path / "model"), pytest.raises(StoppedError), second:
        pytest.fail("two workers at once")
    assert told == [Progress(Stage.WAITING_FOR_FILE, subject="model")]
    with one_at_a_time(tmp_path / "model"):
        pass  # free again


def test_what_a_killed_worker_left_is_swept_and_its_neighbours_are_not(tmp_path: Path) -> None:
    for name in (".model.x7f", ".model.y8", ".other.z"):
        (tmp_path / name / "draft").mkdir(parents=True)
    with one_at_a_time(tmp_path / "model"):
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [".other.z"]

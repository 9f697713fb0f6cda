"""Runs a piece of long work in a process of its own, so that it can be stopped at once and blocks nobody.

The child is one of this package's modules; it speaks in lines of JSON on its standard output. Knows
nothing of what the work is. The child ends by itself when its parent is gone.
"""

import dataclasses
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cna_core.errors import ModelError
from cna_core.progress import Progress, Report, Stage, raise_if_stopped

START = """
import runpy, sys, types
package = types.ModuleType("cna_core")
package.__path__ = [sys.argv.pop(1)]
sys.modules["cna_core"] = package
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a module as `python -m` would, without what the package imports for its public names: torch takes seconds."""

POLL_SECONDS = 0.1
"""How often a waiting parent looks whether it should stop."""

log = logging.getLogger(__name__)


class ChildFailedError(Exception):
    """The child ended without a result and without a message of its own; `tail` is the end of what it wrote."""

    def __init__(self, tail: str) -> None:
        super().__init__(tail)
        self.tail = tail


def run_child(
    arguments: Sequence[str],
    *,
    progress: Report | None = None,
    stop: threading.Event | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run a module in a process of its own, pass its progress on, and return the result that it reports.

    Args:
        arguments: the module's name and its arguments; the module calls `report_from_child`.
        environment: variables to set for the child beside this process's own.

    Raises:
        ModelError: the one that the child raised, with its sentence and code.
        ChildFailedError: the child ended in a way it did not foresee.
        StoppedError: `stop` was set; the child is gone by then.
    """
    package = Path(__file__).resolve().parents[1]
    search_path = os.pathsep.join(part for part in (str(package.parent), os.environ.get("PYTHONPATH")) if part)
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-c", START, str(package), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, **(environment or {}), "PYTHONPATH": search_path, "PYTHONIOENCODING": "utf-8"},
        )
        try:
            result, failure = _listen(child, progress, stop)
            child.wait()
        finally:
            end(child)
        complaints.seek(0)
        tail = complaints.read()[-4000:].decode("utf-8", errors="replace").strip()
    if failure is not None:
        raise failure
    if child.returncode != 0:
        log.warning("%s ended with code %s: %s", arguments[0], child.returncode, tail)
        raise ChildFailedError(tail)
    return result


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child, by its own id, and wait until it is gone."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _listen(
    child: subprocess.Popen[bytes], progress: Report | None, stop: threading.Event | None
) -> tuple[Any, ModelError | None]:
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True).start()
    result: Any = None
    failure: ModelError | None = None
    while True:
        raise_if_stopped(stop)
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return result, failure
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library's own chatter
        if not isinstance(message, dict):
            continue
        if "progress" in message:
            _pass_on(message["progress"], progress)
        result = message.get("result", result)
        if "error" in message:
            failure = ModelError(message["error"], code=message["code"])


def _pass_on(values: dict[str, Any], report: Report | None) -> None:
    if report is not None:
        report(Progress(**{**values, "stage": Stage(values["stage"])}))


def _read_lines(pipe: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    try:
        for line in pipe:
            lines.put(line)
    except ValueError:  # the parent has closed the pipe: nobody listens any more
        pass
    lines.put(None)


def report_from_child(work: Callable[[Report], Any]) -> None:
    """In the child: do `work`, and tell the parent its progress, its result, or its `ModelError`."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    def progress(told: Progress) -> None:
        _say({"progress": dataclasses.asdict(told)})

    try:
        _say({"result": work(progress)})
    except ModelError as error:
        _say({"error": str(error), "code": error.code})


def _leave_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would be missed when the child ends by itself
        pass
    os._exit(1)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()

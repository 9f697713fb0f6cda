"""Run long work in a child process, so that it can be stopped at once and does not block the interpreter.

The child runs one of this package's modules and writes lines of JSON to its standard output. It ends by itself when its
parent is gone. This module does not know what the work is.
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
"""Runs a module as `python -m` does, but without importing the package's `__init__`."""

POLL_SECONDS = 0.1
"""How often a waiting parent checks whether it should stop."""

log = logging.getLogger(__name__)


class ChildFailedError(Exception):
    """The child ended without a result and without an error message; `tail` is the end of its stderr."""

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
    """Run a module in a child process, pass on its progress, and return the result that it reports.

    Args:
        arguments: the module's name and its arguments. The module must call `report_from_child`.
        environment: environment variables for the child, in addition to this process's.

    Raises:
        ModelError: raised by the child, with its message and code.
        ChildFailedError: the child failed in another way.
        StoppedError: `stop` was set; the child has ended by then.
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
    """End a child process and wait until it is gone."""
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


def read_lines(pipe: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    """Put each line of a pipe into a queue, and None at its end; for a thread of its own."""
    try:
        for line in pipe:
            lines.put(line)
    except ValueError:  # the parent has closed the pipe
        pass
    lines.put(None)


def _listen(
    child: subprocess.Popen[bytes], progress: Report | None, stop: threading.Event | None
) -> tuple[Any, ModelError | None]:
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=read_lines, args=(child.stdout, lines), daemon=True).start()
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
            continue  # output of a library
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


def report_from_child(work: Callable[[Report], Any]) -> None:
    """In the child: run `work`, and report its progress, its result, or its `ModelError` to the parent."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    def progress(told: Progress) -> None:
        _say({"progress": dataclasses.asdict(told)})

    try:
        _say({"result": work(progress)})
    except ModelError as error:
        _say({"error": str(error), "code": error.code})


def _leave_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock would block the child's own exit
        pass
    os._exit(1)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()

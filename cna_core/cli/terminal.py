"""What a command shows while it works (progress, on stderr) and what it leaves (its result, on stdout or in a file)."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cna_core.errors import CnaError
from cna_core.progress import raise_if_stopped

_watching: dict[str, Any] = {}  # what the work under way was given; empty while there is none


@contextlib.contextmanager
def working() -> Iterator[dict[str, Any]]:
    """Keyword arguments `progress` and `stop` for a long call; Ctrl-C sets `stop` and the work ends in good order.

    A part of the work that asks for them again gets the same ones: there is one line to draw on.
    """
    from cna_core.cli.progress_line import ProgressLine

    if _watching:
        yield dict(_watching)
        return
    stop = threading.Event()
    with ProgressLine() as line:
        _watching.update(progress=line.report, stop=stop)
        try:
            yield dict(_watching)
        except KeyboardInterrupt:
            stop.set()
            raise_if_stopped(stop)
        finally:
            _watching.clear()


def write(text: str, out: Path | None) -> None:
    """Write a result to a file, whole or not at all, or to stdout where `out` is None.

    Raises:
        CnaError: the file cannot be written.
    """
    from cna_core.paths import written_beside

    if out is None:
        sys.stdout.write(text + "\n")
        return
    try:
        with written_beside(out) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CnaError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def is_first_process() -> bool:
    """Whether this process prints: under `torchrun` or `accelerate launch` only the first one does."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)

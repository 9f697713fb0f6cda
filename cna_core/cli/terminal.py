"""Output of commands: progress on stderr, the result on stdout or in a file."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cna_core.errors import CnaError
from cna_core.progress import raise_if_stopped
from cna_core.shown import VISIBLE

_watching: dict[str, Any] = {}  # the arguments given to the running work; empty if there is none


@contextlib.contextmanager
def working() -> Iterator[dict[str, Any]]:
    """Keyword arguments `progress` and `stop` for a long call. Ctrl-C sets `stop`, which ends the work cleanly.

    Nested calls get the same arguments, because there is only one progress line.
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
    """Write a result to a file, completely or not at all, or to stdout if `out` is None.

    On a terminal, control characters become symbols, because an answer or a name could hold the terminal's commands.
    Characters that stdout's encoding lacks become "?".

    Raises:
        CnaError: the file cannot be written.
    """
    from cna_core.paths import written_beside

    if out is None:
        encoding = sys.stdout.encoding or "utf-8"
        shown = text.translate(VISIBLE) if sys.stdout.isatty() else text
        sys.stdout.write(shown.encode(encoding, "replace").decode(encoding) + "\n")
        return
    try:
        with written_beside(out) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CnaError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error


def is_first_process() -> bool:
    """Whether this process prints results: under `torchrun` or `accelerate launch` only the first process does."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)

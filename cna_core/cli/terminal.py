"""What a command shows while it works (progress, on stderr) and what it leaves (its result, on stdout or in a file)."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cna_core.errors import CnaError, StoppedError


class Terminal:
    """Progress on one line of stderr, redrawn at most ten times a second; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self.started_at = self.drawn_at = 0.0
        self.stage = ""
        self.live = sys.stderr.isatty()

    def __call__(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        stage = words.split(" ", 1)[0]
        if stage != self.stage:
            self.stage, self.started_at = stage, now
        elif now - self.drawn_at < (0.1 if self.live else 5.0) and done != total:
            return
        self.drawn_at = now
        share = f" {100 * done // total:3d} %" if total else ""
        sys.stderr.write(f"\r\x1b[K{words}{share}" if self.live else f"{words}{share}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self.live and self.stage:
            sys.stderr.write("\r\x1b[K")


@contextlib.contextmanager
def working() -> Iterator[dict[str, Any]]:
    """Keyword arguments `progress` and `stop` for a long call; Ctrl-C sets `stop` and the work ends in good order."""
    terminal, stop = Terminal(), threading.Event()
    try:
        yield {"progress": terminal, "stop": stop}
    except KeyboardInterrupt:
        stop.set()
        raise StoppedError("Stopped, as asked; what was finished is kept.") from None
    finally:
        terminal.close()


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

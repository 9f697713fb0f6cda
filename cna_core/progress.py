"""How long work tells how far it is, and how it is stopped.

The same callable serves a page, a terminal and a test; this file knows none of them.
"""

import threading
from collections.abc import Callable

from cna_core.errors import StoppedError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, words). `total` is 0 while it is unknown; the unit is said in `words`."""


def silent(done: int, total: int, words: str) -> None:
    """Progress that nobody watches."""


def raise_if_stopped(stop: threading.Event | None) -> None:
    """Raise `StoppedError` once `stop` is set; call it between batches, layers, chunks and tokens."""
    if stop is not None and stop.is_set():
        raise StoppedError("Stopped, as asked; what was finished is kept.")

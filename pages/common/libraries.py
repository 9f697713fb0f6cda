"""The libraries that models need, torch and transformers and what builds on them, imported by one thread.

Importing them takes seconds, and the first page needs none of them. The thread starts once that page is out. Only this
thread imports them: two threads that import modules which import one another may see a module that is half made. While
a page is being drawn, which takes a moment, the import waits: the two would share the interpreter's lock.
"""

import contextlib
import gc
import importlib
import importlib.abc
import logging
import sys
import threading
from collections.abc import Iterator

import streamlit as st

from cna_core.progress import Report, Stage, raise_if_stopped, tell

MODULES = (
    "torch",
    "pages.inspecting.found",
    "cna_core.models.load",
    "cna_core.evaluation.triggers",
    "cna_core.evaluation.effects",
)
"""In the order in which they are needed: to show what was found before, to load a model, to work with it."""
LOOKS_SECONDS = 0.05
LONGEST_WAY_SECONDS = 0.5
"""The import waits for a page at most so long before each module."""

log = logging.getLogger(__name__)
_lock = threading.Lock()
_thread: threading.Thread | None = None
_pages_drawn = 0
_nothing_drawn, _hurry = threading.Event(), threading.Event()
_nothing_drawn.set()


def are_here() -> bool:
    """Whether they have been imported."""
    return all(name in sys.modules for name in MODULES) and not (_thread is not None and _thread.is_alive())


def start() -> threading.Thread:
    """Start importing them in the background, once in a process; returns the thread that does."""
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_import, name="libraries", daemon=True)
            _thread.start()
        return _thread


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Let the import wait while the block draws a page."""
    global _pages_drawn
    with _lock:
        _pages_drawn += 1
        _nothing_drawn.clear()
    try:
        yield
    finally:
        with _lock:
            _pages_drawn -= 1
            if not _pages_drawn:
                _nothing_drawn.set()


def wait(progress: Report | None = None, stop: threading.Event | None = None) -> None:
    """Wait until they have been imported.

    Args:
        progress: told that libraries are being imported, if they are not here yet.
        stop: stops waiting.

    Raises:
        StoppedError: `stop` was set. The libraries are imported all the same.
    """
    if are_here():
        return
    thread = start()
    while thread.is_alive():
        raise_if_stopped(stop)
        tell(progress, Stage.IMPORTING)
        thread.join(LOOKS_SECONDS)


def wait_on_page() -> None:
    """Wait as `wait` does, and say so on the page meanwhile."""
    if not are_here():
        _hurry.set()  # this page is being drawn, and waits for the import
        with st.spinner("Loading the libraries …"):
            wait()


class _MakesWay(importlib.abc.MetaPathFinder):
    """Finds no module. Before each module that the libraries' thread imports, it waits while a page is being drawn."""

    def find_spec(self, *_: object) -> None:
        if threading.current_thread() is _thread and not _hurry.is_set():
            _nothing_drawn.wait(LONGEST_WAY_SECONDS)


def _import() -> None:
    way = _MakesWay()
    sys.meta_path.insert(0, way)
    try:
        _import_all()
    finally:
        sys.meta_path.remove(way)


def _import_all() -> None:
    for name in MODULES:
        try:
            importlib.import_module(name)
            gc.freeze()  # Streamlit collects all garbage after every run of a page; modules are none
        except Exception:
            log.exception("%s could not be imported.", name)  # whoever needs it imports it again, and shows why

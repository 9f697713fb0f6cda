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
from collections.abc import Iterator, Sequence

import streamlit as st

from cna_core.progress import Report, Stage, raise_if_stopped, tell

SHOWING = ("torch", "cna_core.circuits.capture", "pages.inspecting.found")
"""What it takes to show what was found before."""
PEEKED_AT = "pandas"
"""Plotly looks whether this module is in `sys.modules`, and then uses it, also while it is half made. So it is imported
first, and while it is, no page is drawn."""
MODULES = (PEEKED_AT, *SHOWING, "cna_core.models.load", "cna_core.evaluation.triggers", "cna_core.evaluation.effects")
"""What it takes to load a model and to work with it. They are imported in this order."""
LOOKS_SECONDS = 0.05
LONGEST_WAY_SECONDS = 0.5
"""The import waits for a page at most so long before each module."""

log = logging.getLogger(__name__)
_lock = threading.Lock()
_thread: threading.Thread | None = None
_imported: set[str] = set()
_drawn = threading.Condition()
_pages_drawn = 0
_half_made = False


def are_here(modules: Sequence[str] = MODULES) -> bool:
    """Whether these modules have been imported."""
    return all(name in (sys.modules if _thread is None else _imported) for name in modules)


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
    with _drawn:
        _drawn.wait_for(lambda: not _half_made)
    _count_drawn(1)
    try:
        yield
    finally:
        _count_drawn(-1)


def _count_drawn(more: int) -> None:
    global _pages_drawn
    with _drawn:
        _pages_drawn += more
        _drawn.notify_all()


def _wait_until_nothing_is_drawn(seconds: float | None = None) -> None:
    with _drawn:
        _drawn.wait_for(lambda: _pages_drawn == 0, seconds)


@contextlib.contextmanager
def _no_page() -> Iterator[None]:
    """Begin when no page is being drawn, and let none begin until the block ends."""
    global _half_made
    with _drawn:
        _half_made = True
        _drawn.wait_for(lambda: _pages_drawn == 0)
    try:
        yield
    finally:
        with _drawn:
            _half_made = False
            _drawn.notify_all()


def wait(progress: Report | None = None, stop: threading.Event | None = None, modules: Sequence[str] = MODULES) -> None:
    """Wait until these modules have been imported.

    Args:
        progress: told that libraries are being imported, if they are not here yet.
        stop: stops waiting.

    Raises:
        StoppedError: `stop` was set. The libraries are imported all the same.
    """
    if are_here(modules):
        return
    thread = start()
    while thread.is_alive() and not are_here(modules):
        raise_if_stopped(stop)
        tell(progress, Stage.IMPORTING)
        thread.join(LOOKS_SECONDS)


def wait_on_page(modules: Sequence[str] = MODULES) -> None:
    """Wait as `wait` does, and say so on the page meanwhile."""
    if not are_here(modules):
        _count_drawn(-1)  # this page waits for the import, so the import need not wait for it
        try:
            with st.spinner("Loading the libraries …"):
                wait(modules=modules)
        finally:
            _count_drawn(1)


class _MakesWay(importlib.abc.MetaPathFinder):
    """Finds no module. Before each module that the libraries' thread imports, it waits while a page is being drawn."""

    def find_spec(self, *_: object) -> None:
        if threading.current_thread() is _thread:
            _wait_until_nothing_is_drawn(LONGEST_WAY_SECONDS)


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
            with _no_page() if name == PEEKED_AT else contextlib.nullcontext():
                importlib.import_module(name)
        except Exception:
            log.exception("%s could not be imported.", name)  # whoever needs it imports it again, and shows why
        gc.freeze()  # Streamlit collects all garbage after every run of a page; modules are none
        _imported.add(name)

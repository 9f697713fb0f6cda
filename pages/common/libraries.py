"""The libraries that models need, torch and transformers and what builds on them, imported by one thread.

Importing them takes seconds, and the first page needs none of them. The thread starts once that page is out. Only this
thread imports them: two threads that import modules which import one another may see a module that is half made.
"""

import gc
import importlib
import logging
import sys
import threading

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

log = logging.getLogger(__name__)
_lock = threading.Lock()
_thread: threading.Thread | None = None


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
        with st.spinner("Loading the libraries …"):
            wait()


def _import() -> None:
    for name in MODULES:
        try:
            importlib.import_module(name)
            gc.freeze()  # Streamlit collects all garbage after every run of a page; modules are none
        except Exception:
            log.exception("%s could not be imported.", name)  # whoever needs it imports it again, and shows why

"""A decode in a thread of its own, which a page looks at while it runs: it lives as long as its browser session does.

A script that is rerun (a slider moves, another page opens) leaves its thread in the middle; here the thread goes on,
and whatever run comes next looks again. When the session is gone, because the tab was closed, the decode ends and the
model is free. The thread draws nothing.
"""

import contextlib
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from streamlit import runtime

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.conversation import Turn
from cna_core.decoding.lanes import Lane, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.errors import CnaError, StoppedError
from cna_core.models.host import host
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Stage, tell
from cna_core.progress_words import progress_in_words
from pages.common import jobs

PATIENCE_SECONDS = 2.0

Prefixes = weakref.WeakKeyDictionary[LoadedModel, PrefixCaches]


@st.cache_resource(show_spinner=False)
def prefix_caches() -> Prefixes:
    """What each model in memory has read, for all sessions; use it while holding the model."""
    return weakref.WeakKeyDictionary()


class Watched(threading.Event):
    """A stop event that counts as set once the browser session has been gone for a while.

    Args:
        session: its id; None for a decode that nobody's leaving ends.
        patience_seconds: a connection that breaks and comes back within this time has not gone.
    """

    def __init__(self, session: str | None = None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self.session = session
        self.patience_seconds = patience_seconds
        self._seen_at = time.monotonic()

    def is_set(self) -> bool:
        if super().is_set():
            return True
        if self.session is None or is_open(self.session):
            self._seen_at = time.monotonic()
        return time.monotonic() - self._seen_at > self.patience_seconds


def is_open(session: str) -> bool:
    """Whether the browser session is connected; without a server (in tests) every one is."""
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


@dataclass(frozen=True)
class Request:
    """What is to be decoded, and on which model; everything is read from the session before the thread starts.

    Args:
        measure: measure activity and divergence even where that costs time. In 16 bits a row more costs nothing, so
            there it is always measured, and can be looked at later.
    """

    model_name: str
    load_options: dict[str, Any]
    lanes: Sequence[Lane]
    circuit: Circuit
    options: dict[str, Any]
    measure: bool = False


@dataclass
class Stream:
    """A turn while it is written. The thread writes, the page reads."""

    turn: Turn
    words: str = "Starting"
    finished: bool = False
    stop: Watched = field(default_factory=Watched)
    thread: threading.Thread | None = None

    @property
    def tokens(self) -> int:
        return sum(len(answer.token_ids) for answer in self.turn.answers)

    @property
    def state(self) -> tuple[int, str, bool]:
        """Changes with everything that a page shows of it."""
        return (self.tokens, self.words, self.finished)

    def end(self) -> None:
        """Stop it; it is finished, and the model free, within one token."""
        self.stop.set()
        self.words = "Stopping"


def start(turn: Turn, request: Request) -> Stream:
    """Begin to write the turn's answers."""
    stream = Stream(turn, stop=Watched(jobs.this_session()))
    arguments = (stream, request, prefix_caches())
    stream.thread = threading.Thread(target=_write, args=arguments, name="chat stream", daemon=True)
    stream.thread.start()
    return stream


def _write(stream: Stream, request: Request, prefixes: Prefixes) -> None:
    turn = stream.turn

    def say(progress: Progress) -> None:
        stream.words = progress_in_words(progress)

    watching: dict[str, Any] = {"progress": say, "stop": stream.stop}
    try:
        with host.acquire(request.model_name, **request.load_options, **watching) as model:
            tell(say, Stage.READING_MESSAGE)
            known = prefixes.setdefault(model, PrefixCaches(model))
            started_at = time.monotonic()
            measure = request.measure or model.dtype.itemsize == 2
            steps = generate(
                model,
                request.lanes,
                request.circuit,
                **request.options,
                measure=measure,
                prefixes=known,
                stop=stream.stop,
            )
            with contextlib.closing(steps):
                for step in steps:
                    turn.answers[step.lane].add(step, time.monotonic() - started_at)
    except StoppedError:
        turn.stopped = True
    except CnaError as error:
        turn.error = str(error)
    except Exception as error:  # the thread's outermost frame: show it in the page, keep the traceback in the log
        turn.error = f"Something went wrong that should not ({type(error).__name__}: {error}); the log has the details."
        raise
    finally:
        stream.finished = True

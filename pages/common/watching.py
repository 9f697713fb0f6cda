"""A stop event that knows which sessions wait for a job: set on request, or once all of them have disconnected."""

import threading
import time
from collections.abc import Callable

from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def this_session() -> str:
    """The id of the browser session whose script is running."""
    context = get_script_run_ctx()
    return context.session_id if context else "no session"


def is_open(session: str) -> bool:
    """Whether the browser session is connected. Without a server (in tests) every session counts as connected."""
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


class Watched(threading.Event):
    """A stop event that also counts as set once no watching session has been connected for a while.

    The job continues while a session that asked for it, or that shows it, is connected. A request to stop takes effect
    once no other connected session has asked for the job.

    Args:
        session: the id of the session that asked for the job.
        patience_seconds: how long a session may be disconnected before it no longer counts.
        clock: a monotonic clock in seconds; tests pass their own.
    """

    def __init__(self, session: str, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.patience_seconds = patience_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = {session}
        self._looking = {session}
        self._left: set[str] = set()
        self._alone_since: float | None = None

    def ask(self, session: str) -> None:
        """Register a session that asks for the job."""
        with self._lock:
            self._asked.add(session)
            self._looking.add(session)
            self._left.discard(session)

    def look(self, session: str) -> None:
        """Register a session that shows the job, unless it asked to stop."""
        with self._lock:
            if session not in self._left:
                self._looking.add(session)

    def leave(self, session: str) -> None:
        """A session asks to stop: stop the job, unless another connected session has asked for it."""
        with self._lock:
            self._asked.discard(session)
            self._looking.discard(session)
            self._left.add(session)
            others = set(self._asked)
        if not any(is_open(other) for other in others):
            self.set()

    def has_left(self, session: str) -> bool:
        """Whether the session asked to stop."""
        with self._lock:
            return session in self._left

    def knows(self, session: str) -> bool:
        """Whether the session watches the job, or did."""
        with self._lock:
            return session in self._looking or session in self._left

    def is_set(self) -> bool:
        if super().is_set():
            return True
        with self._lock:
            looking = set(self._looking)
        if any(is_open(session) for session in looking):
            self._alone_since = None
            return False
        now = self._clock()
        if self._alone_since is None:
            self._alone_since = now
        return now - self._alone_since >= self.patience_seconds

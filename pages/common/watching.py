"""Who waits for a piece of background work: it is stopped when they ask, or when all of them have gone for a while."""

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
    """Whether the browser session is connected; without a server (in tests) every one is."""
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


class Watched(threading.Event):
    """A stop event that also counts as set once no session that watches has been connected for a while.

    A session that asked for the work, or that only looks at it, keeps it alive; asking to stop ends it as soon as no
    other session that asked for it is open.

    Args:
        session: the id of the session that asked for the work.
        patience_seconds: a connection that breaks and comes back within this time has not gone.
        clock: seconds that only grow; tests bring their own.
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
        """This session wants the work too."""
        with self._lock:
            self._asked.add(session)
            self._looking.add(session)
            self._left.discard(session)

    def look(self, session: str) -> None:
        """This session shows the work, unless it asked to stop."""
        with self._lock:
            if session not in self._left:
                self._looking.add(session)

    def leave(self, session: str) -> None:
        """This session wants the work no more: stop it, unless another open session asked for it."""
        with self._lock:
            self._asked.discard(session)
            self._looking.discard(session)
            self._left.add(session)
            others = set(self._asked)
        if not any(is_open(other) for other in others):
            self.set()

    def has_left(self, session: str) -> bool:
        """Whether the session asked to stop, and others did not."""
        with self._lock:
            return session in self._left

    def knows(self, session: str) -> bool:
        """Whether the session watches, or did."""
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

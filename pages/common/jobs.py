"""Background jobs of the pages: threads that write their state to plain objects, and a fragment that draws it.

The threads do not call Streamlit. Jobs belong to the process and are keyed by what they compute, so two sessions that
ask for the same thing share one job, and a reloaded page finds its job again. Errors of all jobs are caught here.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cna_core.errors import CnaError, StoppedError
from cna_core.progress import Progress, Report, Stage, with_seconds_left
from cna_core.progress_words import progress_in_words
from pages.common.plain import plain, tell_error
from pages.common.watching import Watched, this_session

PATIENCE_SECONDS = 60.0
"""How long a job continues after the last page that watched it has disconnected. A reload reconnects sooner."""
FINISHED_KEPT = 64
"""How many finished jobs are kept, so that pages can show how they ended."""


@dataclass(eq=False)
class Job:
    """A background job: its progress and its outcome. The job's thread writes it, pages read it.

    Args:
        key: identifies what it computes; only one job with a key runs at a time.
        title: its name on a page.
        stop: set this to stop it; the work checks it.
        latest: the last progress it reported.
        preview: an intermediate result for a page to show.
        result: what the work returned.
        error: why it failed, in one sentence.
        stopped: whether it ended because it was stopped.
    """

    key: str
    title: str
    stop: Watched = field(default_factory=lambda: Watched(this_session(), PATIENCE_SECONDS))
    latest: Progress = field(default_factory=lambda: Progress(Stage.STARTING))
    preview: Any = None
    result: Any = None
    error: str | None = None
    stopped: bool = False

    def __post_init__(self) -> None:
        self.progress: Report = with_seconds_left(self._keep)
        """The progress callback to pass to the library."""
        self._ended = threading.Event()

    def _keep(self, progress: Progress) -> None:
        self.latest = progress

    @property
    def finished(self) -> bool:
        return self._ended.is_set()

    @property
    def succeeded(self) -> bool:
        return self.finished and self.error is None and not self.stopped

    @property
    def line(self) -> str:
        """The progress line: the stage, how much is done, and the time left."""
        return progress_in_words(Progress(Stage.STOPPING) if self.stop.is_set() else self.latest)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the job has ended; returns False if it has not ended within `seconds`."""
        return self._ended.wait(seconds)

    def run(self, work: Callable[["Job"], Any], ended: Callable[["Job"], None]) -> None:
        """Run the work and store its outcome; `ended` is called before the job counts as finished."""
        try:
            self.result = work(self)
        except StoppedError:
            self.stopped = True
        except CnaError as error:
            self.error = str(error)
        except Exception as error:  # the thread's outermost frame: show it on the page, keep the traceback in the log
            name = type(error).__name__
            self.error = f"Unexpected error ({name}: {error}). The log has the details; please report it."
            raise
        finally:
            ended(self)
            self._ended.set()


def _nothing_more(_job: Job) -> None:
    pass


class Registry:
    """The running jobs of this process by key, and the latest finished ones. A new job replaces a finished one."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Job | None:
        """The job with this key, or None."""
        with self._lock:
            return self._jobs.get(key)

    def start(
        self,
        key: str,
        title: str,
        work: Callable[[Job], Any],
        session: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        ended: Callable[[Job], None] = _nothing_more,
    ) -> Job:
        """Start `work(job)` in a thread, or join a job with the same key. `work`'s return value becomes `job.result`.

        Args:
            session: the id of the session that asks for it.
            patience_seconds: how long it continues when no page watches it any more.
            ended: called by the thread with the ended job, before the job counts as finished.
        """
        with self._lock:
            running = self._jobs.get(key)
            if running is not None and not running.finished and not running.stop.is_set():
                running.stop.ask(session)
                return running
            job = Job(key, title, Watched(session, patience_seconds))
            self._jobs.pop(key, None)  # so that the new job comes last in the dictionary
            self._jobs[key] = job
            finished = [old for old in self._jobs.values() if old.finished]
            for old in finished[: max(0, len(finished) - FINISHED_KEPT)]:
                del self._jobs[old.key]
        threading.Thread(target=job.run, args=(work, ended), name=f"job {title}", daemon=True).start()
        return job


@st.cache_resource(show_spinner=False)
def registry() -> Registry:
    """The process-wide registry."""
    return Registry()


def start(
    key: str,
    title: str,
    work: Callable[[Job], Any],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    ended: Callable[[Job], None] = _nothing_more,
) -> Job:
    """Start or join a job for this session; arguments as for `Registry.start`."""
    return registry().start(key, title, work, this_session(), patience_seconds=patience_seconds, ended=ended)


def get(key: str) -> Job | None:
    """The job with this key, or None."""
    return registry().get(key)


def running(key: str) -> Job | None:
    """The job with this key if it is running, else None."""
    job = get(key)
    return job if job is not None and not job.finished else None


def watch(key: str, draw: Callable[[Job], None] | None = None, every_seconds: float = 0.5) -> None:
    """Draw a running job: its progress line, bar and Stop button. Redraws only these, and the page once at the end.

    Args:
        key: the job's key.
        draw: draws the job's preview under the bar.
    """

    @st.fragment(run_every=every_seconds)
    def watched() -> None:
        job, here = running(key), this_session()
        if job is None:
            st.rerun()
        job.stop.look(here)
        line, button = st.columns([6, 1], vertical_alignment="center")
        line.progress(job.latest.share, text=plain(job.line))
        left = job.stop.has_left(here)
        button.button(
            "Stop",
            key=f"stop-{key}",
            icon=":material/stop:",
            disabled=left or job.stop.is_set(),
            help="Another session is waiting for this too, so it continues." if left else None,
            on_click=job.stop.leave,
            args=(here,),
        )
        if draw is not None:
            draw(job)

    watched()


def tell_outcome(job: Job | None) -> None:
    """Show in one line that a job failed or was stopped, to the sessions that watched it."""
    if job is None or not job.finished or not job.stop.knows(this_session()):
        return
    if job.error:
        tell_error(job.error, icon=":material/error:")
    elif job.stopped:
        st.info(f"{job.title}: stopped. Finished work is saved. Start it again to resume.", icon=":material/pause:")

"""Background work of the pages: threads that write plain records, and a fragment that draws them.

The threads call no Streamlit. Jobs are process-wide and named by what they compute, so two sessions that ask for the
same thing wait for one computation, and a reloaded page finds its job again. Errors of all jobs are caught here.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cna_core.errors import CnaError, StoppedError
from cna_core.progress import Progress, Report, Stage, with_seconds_left
from cna_core.progress_words import progress_in_words
from pages.common.watching import Watched, this_session

PATIENCE_SECONDS = 60.0
"""How long a job goes on after the last page that watched it has gone; a reload comes back sooner."""
FINISHED_KEPT = 64
"""How many finished jobs are kept, to tell how they ended."""


@dataclass(eq=False)
class Job:
    """One piece of background work: how far it is, and how it ended. Its thread writes, pages read.

    Args:
        key: what it computes; one job of a key runs at a time.
        title: what it is called on a page.
        stop: set to stop it; the work checks it.
        latest: the last progress it reported.
        preview: what there is to see before it ends.
        result: what the work returned.
        error: why it failed, in one sentence.
        stopped: it ended because it was stopped.
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
        """What to hand to the library."""
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
        """What is being done, how far, and how long it will take."""
        return progress_in_words(Progress(Stage.STOPPING) if self.stop.is_set() else self.latest)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False where it has not by then."""
        return self._ended.wait(seconds)

    def run(self, work: Callable[["Job"], Any], ended: Callable[["Job"], None]) -> None:
        """Do the work; whatever happens is noted here, and `ended` is called before anyone sees the job finished."""
        try:
            self.result = work(self)
        except StoppedError:
            self.stopped = True
        except CnaError as error:
            self.error = str(error)
        except Exception as error:  # the thread's outermost frame: show it on the page, keep the traceback in the log
            name = type(error).__name__
            self.error = f"Something went wrong that should not ({name}: {error}); the log has the details."
            raise
        finally:
            ended(self)
            self._ended.set()


def _nothing_more(_job: Job) -> None:
    pass


class Registry:
    """Every running job of this process by key, and the last finished ones; a new job replaces a finished one."""

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
        """Start `work(job)` in a thread unless the same job runs already; `work`'s value becomes `job.result`.

        Args:
            session: the id of the session that asks for it.
            patience_seconds: how long it goes on when no page watches it any more.
            ended: called by the thread with the ended job, before anyone sees it finished.
        """
        with self._lock:
            running = self._jobs.get(key)
            if running is not None and not running.finished and not running.stop.is_set():
                running.stop.ask(session)
                return running
            job = Job(key, title, Watched(session, patience_seconds))
            self._jobs.pop(key, None)  # so that the new one is the youngest
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
    """The job with this key while it runs, else None."""
    job = get(key)
    return job if job is not None and not job.finished else None


def watch(key: str, draw: Callable[[Job], None] | None = None, every_seconds: float = 0.5) -> None:
    """Draw a running job: progress line, bar and Stop, redrawn alone until it ends, then the page once.

    Args:
        key: the job's key.
        draw: draws the job's preview under the bar, if there is something to see before it ends.
    """

    @st.fragment(run_every=every_seconds)
    def watched() -> None:
        job, here = running(key), this_session()
        if job is None:
            st.rerun()
        job.stop.look(here)
        line, button = st.columns([6, 1], vertical_alignment="center")
        line.progress(job.latest.share, text=job.line)
        left = job.stop.has_left(here)
        button.button(
            "Stop",
            key=f"stop-{key}",
            icon=":material/stop:",
            disabled=left or job.stop.is_set(),
            help="Another session waits for this too, so it goes on." if left else None,
            on_click=job.stop.leave,
            args=(here,),
        )
        if draw is not None:
            draw(job)

    watched()


def tell_outcome(job: Job | None) -> None:
    """Say in one line that a job ended with an error or was stopped, to the sessions that watched it."""
    if job is None or not job.finished or not job.stop.knows(this_session()):
        return
    if job.error:
        st.error(job.error, icon=":material/error:")
    elif job.stopped:
        st.info(f"{job.title}: stopped. Finished work is saved; start again to go on.", icon=":material/pause:")

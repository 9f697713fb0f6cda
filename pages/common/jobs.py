"""Long work behind a page: a thread that writes a plain record, and a fragment that draws it.

The thread calls no Streamlit. Jobs are process-wide and named by what they compute, so two sessions that ask for the
same thing wait for one computation, and a reloaded page finds its job again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from cna_core.errors import CnaError, StoppedError
from cna_core.progress import Progress, Report, Stage, with_seconds_left
from cna_core.progress_words import progress_in_words


@dataclass
class Job:
    """One piece of long work and how far it is. The thread writes, pages read."""

    key: str
    title: str
    latest: Progress = field(default_factory=lambda: Progress(Stage.STARTING))
    preview: Any = None
    result: Any = None
    error: str | None = None
    finished: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    started_at: float = field(default_factory=time.monotonic)
    finished_at: float | None = None
    watchers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.progress: Report = with_seconds_left(self._keep)
        """What to hand to the library."""

    def _keep(self, progress: Progress) -> None:
        self.latest = progress

    @property
    def succeeded(self) -> bool:
        return self.finished and self.error is None and not self.stop.is_set()

    @property
    def elapsed_seconds(self) -> float:
        return (self.finished_at or time.monotonic()) - self.started_at

    @property
    def line(self) -> str:
        """What is being done, how far, and how long it will take."""
        return progress_in_words(self.latest)


class Registry:
    """Every job of this process, by key; the newest job of a key replaces a finished one."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Job | None:
        return self._jobs.get(key)

    def start(self, key: str, title: str, work: Callable[[Job], Any], watcher: str) -> Job:
        """Start `work(job)` in a thread unless the same job runs already; `work`'s value becomes `job.result`."""
        with self._lock:
            running = self._jobs.get(key)
            if running is not None and not running.finished and not running.stop.is_set():
                running.watchers.add(watcher)
                return running
            job = Job(key, title, watchers={watcher})
            self._jobs[key] = job
        threading.Thread(target=_run, args=(job, work), name=f"job {title}", daemon=True).start()
        return job

    def stop(self, key: str, watcher: str) -> None:
        """Stop the job, unless another open session waits for it too: then only this session stops watching."""
        job = self._jobs.get(key)
        if job is None:
            return
        job.watchers.discard(watcher)
        if not any(_is_open(other) for other in job.watchers):
            job.stop.set()


def _run(job: Job, work: Callable[[Job], Any]) -> None:
    try:
        job.result = work(job)
    except StoppedError:
        job.stop.set()
    except CnaError as error:
        job.error = str(error)
    except Exception as error:  # the thread's outermost frame: show it in the page, keep the traceback in the log
        job.error = f"Something went wrong that should not ({type(error).__name__}: {error}); the log has the details."
        raise
    finally:
        job.finished_at = time.monotonic()
        job.finished = True


def _is_open(session: str) -> bool:
    return get_instance().is_active_session(session)


@st.cache_resource(show_spinner=False)
def registry() -> Registry:
    """The process-wide registry."""
    return Registry()


def this_session() -> str:
    """The id of the browser session whose script is running."""
    context = get_script_run_ctx()
    return context.session_id if context else "no session"


def start(key: str, title: str, work: Callable[[Job], Any]) -> Job:
    """Start or join a job for this session."""
    return registry().start(key, title, work, this_session())


def get(key: str) -> Job | None:
    """The job with this key, or None."""
    return registry().get(key)


def watch(key: str, draw: Callable[[Job], None] | None = None, every_seconds: float = 0.5) -> None:
    """Draw a running job: progress line, bar and Stop, redrawn alone until it ends, then the page once.

    Args:
        key: the job's key.
        draw: draws the job's preview under the bar, if there is something to see before it ends.
    """

    @st.fragment(run_every=every_seconds)
    def watched() -> None:
        job = get(key)
        if job is None or job.finished:
            st.rerun()
        stopping = job.stop.is_set()
        line, button = st.columns([6, 1], vertical_alignment="center")
        told = Progress(Stage.STOPPING) if stopping else job.latest
        line.progress(job.latest.share, text=progress_in_words(told))
        button.button(
            "Stop",
            key=f"stop-{key}",
            icon=":material/stop:",
            disabled=stopping,
            on_click=registry().stop,
            args=(key, this_session()),
        )
        if draw is not None:
            draw(job)

    watched()


def tell_outcome(job: Job | None) -> None:
    """Say it in one line where a job ended with an error or was stopped."""
    if job is None or not job.finished:
        return
    if job.error:
        st.error(job.error, icon=":material/error:")
    elif job.stop.is_set():
        st.info(f"{job.title}: stopped. Finished work is saved; start again to go on.", icon=":material/pause:")

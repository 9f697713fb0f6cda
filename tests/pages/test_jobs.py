"""Background jobs: joined, stopped, given up when nobody watches, and told about, without a Streamlit server."""

import threading
from typing import Any

import pytest

from cna_core.errors import PromptError, StoppedError
from cna_core.progress import Progress, Stage, with_seconds_left
from pages.common import jobs, watching
from pages.common.jobs import FINISHED_KEPT, Job, Registry
from pages.common.watching import Watched

WAIT_SECONDS = 10


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The sessions that are closed; all others are open."""
    sessions = {"closed"}
    monkeypatch.setattr(watching, "is_open", lambda session: session not in sessions)
    return sessions


@pytest.fixture
def registry() -> Registry:
    return Registry()


def finish(job: Job) -> Job:
    assert job.wait(WAIT_SECONDS)
    return job


def held(job_may_end: threading.Event) -> Any:
    def work(job: Job) -> str:
        while not job_may_end.wait(0.01):
            if job.stop.is_set():
                raise StoppedError("Stopped.")
        return "done"

    return work


def test_two_sessions_that_ask_for_the_same_thing_share_one_job(registry: Registry) -> None:
    may_end = threading.Event()
    first = registry.start("key", "shared", held(may_end), "ann")
    second = registry.start("key", "shared", held(may_end), "ben")
    may_end.set()
    assert first is second
    assert finish(first).result == "done"


def test_stop_by_one_session_leaves_the_job_to_the_other(registry: Registry) -> None:
    may_end = threading.Event()
    job = registry.start("key", "left", held(may_end), "ann")
    registry.start("key", "left", held(may_end), "ben")
    job.stop.leave("ann")
    assert not job.stop.is_set() and job.stop.has_left("ann")
    job.stop.leave("ben")
    assert finish(job).stopped and not job.succeeded


def test_a_session_that_only_looks_on_keeps_nobody_from_stopping(registry: Registry) -> None:
    job = registry.start("key", "looked at", held(threading.Event()), "ann")
    job.stop.look("ben")
    job.stop.leave("ann")
    assert finish(job).stopped


def test_a_closed_session_does_not_keep_a_job_from_being_stopped(registry: Registry) -> None:
    job = registry.start("key", "closed", held(threading.Event()), "closed")
    registry.start("key", "closed", held(threading.Event()), "ann")
    job.stop.leave("ann")
    assert finish(job).stopped


def test_a_job_that_nobody_watches_any_more_is_stopped(registry: Registry, closed: set[str]) -> None:
    job = registry.start("key", "forgotten", held(threading.Event()), "ann", patience_seconds=0.0)
    closed.add("ann")
    assert finish(job).stopped


def test_a_session_that_comes_back_in_time_or_looks_at_it_keeps_a_job_alive(closed: set[str]) -> None:
    now = 0.0
    stop = Watched("ann", 60.0, clock=lambda: now)
    closed.add("ann")
    assert not stop.is_set()
    now = 59.0
    assert not stop.is_set()
    stop.look("ben")  # the same page, loaded again
    now = 600.0
    assert not stop.is_set()
    closed.add("ben")
    assert not stop.is_set()
    now = 660.0
    assert stop.is_set()


def test_a_finished_job_stays_as_it_ended_when_its_watchers_go(registry: Registry, closed: set[str]) -> None:
    job = finish(registry.start("key", "kept", lambda job: 1, "ann", patience_seconds=0.0))
    closed.add("ann")
    assert job.succeeded and job.result == 1


def test_an_error_in_the_users_words_reaches_the_page(registry: Registry) -> None:
    def work(job: Job) -> None:
        raise PromptError("Line 3 is empty; remove it.")

    assert finish(registry.start("key", "failed", work, "ann")).error == "Line 3 is empty; remove it."


def test_what_is_noted_at_the_end_is_there_when_the_job_is_seen_finished(registry: Registry) -> None:
    noted: list[tuple[Any, bool]] = []
    finish(
        registry.start("key", "noted", lambda job: 1, "ann", ended=lambda job: noted.append((job.result, job.finished)))
    )
    assert noted == [(1, False)]


def test_only_sessions_that_watched_a_job_are_told_how_it_ended(registry: Registry) -> None:
    job = finish(registry.start("key", "told", lambda job: 1, "ann"))
    assert job.stop.knows("ann") and not job.stop.knows("ben")


def test_a_finished_job_gives_way_to_a_new_one(registry: Registry) -> None:
    first = finish(registry.start("key", "one", lambda job: 1, "ann"))
    second = finish(registry.start("key", "two", lambda job: 2, "ann"))
    assert (first.result, second.result) == (1, 2)


def test_finished_jobs_are_dropped_oldest_first_and_running_ones_are_not(registry: Registry) -> None:
    may_end = threading.Event()
    running = registry.start("running", "long", held(may_end), "ann")
    for number in range(FINISHED_KEPT + 3):
        finish(registry.start(f"key {number}", "short", lambda job: 1, "ann"))
    assert registry.get("running") is running
    assert registry.get("key 0") is None
    assert registry.get(f"key {FINISHED_KEPT + 2}") is not None
    may_end.set()
    finish(running)


def test_a_job_says_what_it_does_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(jobs, "with_seconds_left", lambda report: with_seconds_left(report, clock=lambda: now))
    job = Job("key", "title")
    job.progress(Progress(Stage.CAPTURING, 0, 4, "prompts"))
    now = 120.0
    job.progress(Progress(Stage.CAPTURING, 2, 4, "prompts"))
    assert job.line == "Recording activations: 2 of 4 prompts, about 20 s left"
    job.stop.set()
    assert job.line == "Stopping …"

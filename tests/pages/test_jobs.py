"""Background jobs: joined, stopped, and told about, without a Streamlit server."""

import threading
from typing import Any

import pytest

from cna_core.errors import PromptError, StoppedError
from cna_core.progress import Progress, Stage, with_seconds_left
from pages.common import jobs
from pages.common.jobs import Job, Registry

WAIT_SECONDS = 10


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(jobs, "_is_open", lambda session: session != "closed")
    return Registry()


def finish(job: Job) -> Job:
    for thread in threading.enumerate():
        if thread.name == f"job {job.title}":
            thread.join(WAIT_SECONDS)
    assert job.finished
    return job


def held(job_may_end: threading.Event) -> Any:
    def work(job: Job) -> str:
        while not job_may_end.wait(0.01):
            if job.stop.is_set():
                raise StoppedError("Stopped, as asked.")
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
    registry.stop("key", "ann")
    assert not job.stop.is_set()
    registry.stop("key", "ben")
    assert not finish(job).succeeded


def test_a_closed_session_does_not_keep_a_job_from_being_stopped(registry: Registry) -> None:
    job = registry.start("key", "closed", held(threading.Event()), "closed")
    registry.start("key", "closed", held(threading.Event()), "ann")
    registry.stop("key", "ann")
    assert job.stop.is_set()
    finish(job)


def test_an_error_in_the_users_words_reaches_the_page(registry: Registry) -> None:
    def work(job: Job) -> None:
        raise PromptError("Line 3 is empty; remove it.")

    assert finish(registry.start("key", "failed", work, "ann")).error == "Line 3 is empty; remove it."


def test_a_finished_job_gives_way_to_a_new_one(registry: Registry) -> None:
    first = finish(registry.start("key", "one", lambda job: 1, "ann"))
    second = finish(registry.start("key", "two", lambda job: 2, "ann"))
    assert (first.result, second.result) == (1, 2)


def test_a_job_says_what_it_does_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(jobs, "with_seconds_left", lambda report: with_seconds_left(report, clock=lambda: now))
    job = Job("key", "title")
    job.progress(Progress(Stage.CAPTURING, 0, 4, "prompts"))
    now = 120.0
    job.progress(Progress(Stage.CAPTURING, 2, 4, "prompts"))
    assert job.line == "Recording activations: 2 of 4 prompts, about 20 s left"

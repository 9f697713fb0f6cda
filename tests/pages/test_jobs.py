"""Background jobs: joined, stopped, and told about, without a Streamlit server."""

import threading
from typing import Any

import pytest

from cna_core.errors import PromptError, StoppedError
from pages.common import jobs
from pages.common.jobs import Job, Registry, counted, spoken_seconds

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


def test_time_left_follows_the_pace_of_the_present_stage() -> None:
    job = Job("key", "paced")
    job.progress(0, 10, "Downloading")
    assert job.seconds_left is None
    job._stage_started_at -= 4.0
    job.progress(2, 10, "Downloading")
    assert job.seconds_left == pytest.approx(16.0, rel=0.05)
    job.progress(0, 5, "Converting")
    assert job.seconds_left is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("prompts recorded", "2 of 4 prompts recorded · about 20 s left"),
        ("Downloading m.gguf: 2 MB of 4 MB, about 25 seconds left",) * 2,
    ],
)
def test_the_time_left_is_said_once(monkeypatch: pytest.MonkeyPatch, words: str, line: str) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    job = Job("key", "title")
    job.progress(0, 4, words)
    now[0] += 20
    job.progress(2, 4, words)
    assert job.line == line


@pytest.mark.parametrize(
    ("total", "words", "said"),
    [
        (224, "prompts recorded", "96 of 224 prompts recorded"),
        (224, "Layer profile: prompts", "Layer profile: 96 of 224 prompts"),
        (224, "Measuring: answers to harmful prompts", "Measuring: answers to harmful prompts"),
        (224, "Fetching model.gguf: 96 MB of 491 MB", "Fetching model.gguf: 96 MB of 491 MB"),
        (0, "prompts recorded", "prompts recorded"),
    ],
)
def test_the_count_stands_where_the_words_want_it(total: int, words: str, said: str) -> None:
    assert counted(96, total, words) == said


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (8.4, "8 s"), (240, "4 min"), (7200, "2.0 h")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert spoken_seconds(seconds) == words

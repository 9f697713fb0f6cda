"""Progress as values: its pace, its words, and errors with codes."""

import threading
from collections.abc import Callable

import pytest

from cna_core.errors import CnaError, ModelError, StoppedError
from cna_core.progress import BYTES, Progress, Stage, raise_if_stopped, tell, with_seconds_left
from cna_core.progress_words import duration_in_words, progress_in_words, size_in_words

MEGABYTE = 1_000_000


class Watched:
    """A report with a clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Progress] = []
        self.report: Callable[[Progress], None] = with_seconds_left(self.told.append, clock=lambda: self.now)

    def seconds_left(self, now: float, progress: Progress) -> float | None:
        self.now = now
        self.report(progress)
        return self.told[-1].seconds_left


def prompts(done: int, total: int = 10, stage: Stage = Stage.CAPTURING) -> Progress:
    return Progress(stage, done, total, "prompts")


def downloaded(megabytes: int, total: int) -> Progress:
    return Progress(Stage.FETCHING, megabytes * MEGABYTE, total * MEGABYTE, BYTES, subject="m.gguf")


def test_the_time_left_follows_the_pace_of_the_count() -> None:
    watched = Watched()
    assert watched.seconds_left(0, prompts(0)) is None
    assert watched.seconds_left(4, prompts(2)) == 16
    assert watched.seconds_left(20, prompts(5)) == 20
    assert watched.seconds_left(30, prompts(10)) is None


def test_a_count_that_begins_with_earlier_work_is_paced_by_what_it_adds() -> None:
    watched = Watched()
    watched.seconds_left(0, prompts(6))
    assert watched.seconds_left(10, prompts(8)) == 10


@pytest.mark.parametrize(
    "other", [prompts(0), prompts(2, total=20), Progress(Stage.WORKING_POINT_SETTINGS, 2, 10, "settings")]
)
def test_a_new_count_has_no_pace_yet(other: Progress) -> None:
    watched = Watched()
    watched.seconds_left(0, prompts(0))
    watched.seconds_left(10, prompts(2))
    assert watched.seconds_left(30, other) is None


def test_two_stages_with_one_count_share_its_pace() -> None:
    watched = Watched()
    watched.seconds_left(0, Progress(Stage.SWEEP_ANSWERS, 0, 100))
    watched.seconds_left(10, Progress(Stage.SWEEP_ANSWERS, 20, 100))
    assert watched.seconds_left(30, Progress(Stage.SWEEP_FIRST_TOKENS, 60, 100)) == 20


def test_the_pace_of_a_download_is_that_of_its_last_seconds() -> None:
    watched = Watched()

    def at(second: int, megabytes: int) -> float | None:
        return watched.seconds_left(second, downloaded(megabytes, 100))

    left = [at(second, second) for second in range(20)]  # 1 MB a second
    assert left[-1] == pytest.approx(81)
    left = [at(second, 19 + (second - 19) * 5) for second in range(20, 30)]  # 5 MB a second
    assert left[-1] == pytest.approx(31 / 5)


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (prompts(32, 224), "Recording activations: 32 of 224 prompts"),
        (
            Progress(Stage.LAYER_PROFILE, 3, 24, "prompts", seconds_left=61.0),
            "Measuring the layer profile: 3 of 24 prompts, about 61 s left",
        ),
        (downloaded(96, 491), "Downloading m.gguf: 96 MB of 491 MB"),
        (downloaded(2500, 0), "Downloading m.gguf: 2.5 GB"),
        (Progress(Stage.SWEEP_ANSWERS, 300, 1000, subject="harmful"), "Measuring answers to harmful prompts: 30 %"),
        (Progress(Stage.SWEEP_FIRST_TOKENS, subject="knowledge"), "Measuring first tokens on knowledge questions"),
        (Progress(Stage.LOADING, subject="tiny"), "Loading tiny"),
        (Progress(Stage.WAITING_FOR_MODEL, place=1), "Another session is using the model. You are next."),
        (
            Progress(Stage.WAITING_FOR_MODEL, place=3),
            "Other sessions are using the model. You are number 3 in the queue.",
        ),
    ],
)
def test_progress_is_said_in_plain_words(progress: Progress, words: str) -> None:
    assert progress_in_words(progress) == words


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_words(stage: Stage) -> None:
    words = progress_in_words(Progress(stage, 1, 2, "prompts", subject="x"))
    assert words[0].isupper() and "{" not in words


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (8.4, "8 s"), (240, "4 min"), (7200, "2.0 h")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_sizes_are_said_in_words() -> None:
    assert [size_in_words(size) for size in (93_000_000, 1_260_000_000)] == ["93 MB", "1.3 GB"]


def test_nobody_needs_to_watch() -> None:
    tell(None, Stage.CAPTURING, 1, 2, "prompts")


def test_stopping_says_that_finished_work_is_saved() -> None:
    stop = threading.Event()
    raise_if_stopped(stop)
    stop.set()
    with pytest.raises(StoppedError, match=r"^Stopped\. Finished work is saved\.$") as caught:
        raise_if_stopped(stop)
    assert caught.value.code == "stopped"


def test_an_error_has_the_code_of_its_kind_or_one_of_its_own() -> None:
    assert ModelError("x").code == "model-unusable"
    assert ModelError("x", code="model-not-found").code == "model-not-found"
    assert str(ModelError("x", code="model-not-found")) == "x"
    kinds = CnaError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)

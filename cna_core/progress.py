"""Progress reports of long work, and how it is stopped.

Work calls a `Report` with `Progress` values; pages, terminals and tests all receive the same values. This module draws
nothing and has no words for users; those are in progress_words.py.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from cna_core.errors import StoppedError


class Stage(StrEnum):
    """A stage of long work. The values are stable, because child processes and files may hold them."""

    STARTING = "starting"
    IMPORTING = "importing-libraries"
    """The libraries that models need are being imported, once in a process."""
    WAITING_FOR_MODEL = "waiting-for-model"
    """Other requests use the model; `place` is the position in the queue."""
    WAITING_FOR_LOADING = "waiting-for-loading"
    """Another model is being loaded."""
    WAITING_FOR_FILE = "waiting-for-file"
    """Another process is making the file that is needed."""
    FETCHING = "fetching"
    CHECKING_FILE = "checking-file"
    CONVERTING = "converting"
    CONVERTING_HEADER = "converting-header"
    CONVERTING_WEIGHTS = "converting-weights"
    CONVERTING_TOKENIZER = "converting-tokenizer"
    CONVERTING_WRITE = "converting-write"
    CONVERTING_AGAIN = "converting-again"
    """The converted copy was damaged, so it is converted again."""
    LOADING = "loading"
    PACKING_WEIGHTS = "packing-weights"
    CAPTURING = "capturing-activations"
    CAPTURING_IN_HALVES = "capturing-activations-in-halves"
    """Memory ran short, so the batches were halved."""
    READING_KEPT = "reading-kept-results"
    """Saved results are read from disk; nothing is computed."""
    MEASURING_EFFECTS = "measuring-effects"
    READING_FIRST_WORDS = "reading-first-words"
    FITTING_METHOD = "fitting-method"
    """A method records what it needs (means, vectors, a direction); `subject` names the method."""
    SWEEP_ANSWERS = "sweep-answers"
    SWEEP_FIRST_TOKENS = "sweep-first-tokens"
    """Both stages of a sweep share one count, in parts of the whole; `subject` is the prompt set."""
    WORKING_POINT_DIVERGENCES = "working-point-divergences"
    WORKING_POINT_SETTINGS = "working-point-settings"
    LAYER_PROFILE = "layer-profile"
    HOW_FEW = "how-few"
    CHECKING_SHUFFLED_LABELS = "checking-shuffled-labels"
    CHECKING_RANDOM_HALVES = "checking-random-halves"
    CHECKING_CLAIM = "checking-a-claim"
    """`subject` is the check's title."""
    TIMING = "timing"
    READING_MESSAGE = "reading-message"
    FIRST_SETTING = "first-setting"
    WRITING_ANSWERS = "writing-answers"
    ASKING_LOCAL_JUDGE = "asking-local-judge"
    STOPPING = "stopping"


BYTES = "bytes"
"""The unit of downloads and of files that are read."""


@dataclass(frozen=True)
class Progress:
    """The progress of long work.

    Args:
        stage: what the work is doing.
        done: how much of the stage is done, in units.
        total: how much there is to do; 0 if unknown.
        unit: what is counted, a plural noun: "prompts", "bytes". If empty, `done` and `total` only give a share.
        seconds_left: the estimated time for the rest; None if unknown.
        subject: the name of the file, model, method or prompt set that is worked on.
        place: the position in the queue for the model, 1 for the next in turn; None if there is no queue.
    """

    stage: Stage
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds_left: float | None = None
    subject: str = ""
    place: int | None = None

    @property
    def share(self) -> float:
        """The share that is done, 0 to 1; 0 if unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0


Report = Callable[[Progress], None]
"""The callback that long work calls with its progress. If it raises, the work ends."""


def no_report(progress: Progress) -> None:
    """A `Report` that does nothing; used for None."""


_default: list[Report] = [no_report]


def report_by_default(report: Report | None) -> None:
    """Set the report that calls in this process use if they are given no `progress`; None for no report."""
    _default[0] = report or no_report


def tell(
    report: Report | None,
    stage: Stage,
    done: int = 0,
    total: int = 0,
    unit: str = "",
    *,
    subject: str = "",
    place: int | None = None,
) -> None:
    """Call `report`, or the default report if it is None, with a `Progress` of these values."""
    (report or _default[0])(Progress(stage, done, total, unit, subject=subject, place=place))


WINDOW_SECONDS = 8.0
"""A download's speed is measured over its last seconds, because it varies; the speed of other work over all of it."""


def with_seconds_left(report: Report, clock: Callable[[], float] = time.monotonic) -> Report:
    """A report that adds the estimated seconds left, and passes the progress on to `report`.

    The estimate starts anew when the unit or the total changes, or when the count falls.

    Args:
        report: receives the progress.
        clock: a monotonic clock in seconds; tests pass their own.
    """
    seen: deque[tuple[float, int]] = deque()
    count = ("", 0)

    def timed(progress: Progress) -> None:
        nonlocal count
        now = clock()
        if count != (progress.unit, progress.total) or (seen and progress.done < seen[-1][1]):
            count = progress.unit, progress.total
            seen.clear()
        if progress.unit != BYTES and len(seen) > 1:
            seen.pop()  # keep only the first and the last
        seen.append((now, progress.done))
        while now - seen[0][0] > WINDOW_SECONDS and len(seen) > 2:
            seen.popleft()
        report(replace(progress, seconds_left=_seconds_left(seen, progress)))

    return timed


def _seconds_left(seen: deque[tuple[float, int]], progress: Progress) -> float | None:
    (first_time, first_done), (last_time, last_done) = seen[0], seen[-1]
    if progress.done >= progress.total or last_done <= first_done or last_time - first_time < 1:
        return None
    return (last_time - first_time) / (last_done - first_done) * (progress.total - progress.done)


def raise_if_stopped(stop: threading.Event | None) -> None:
    """Raise `StoppedError` if `stop` is set. Call it between batches, layers, chunks and tokens."""
    if stop is not None and stop.is_set():
        raise StoppedError("Stopped. Finished work is saved.")

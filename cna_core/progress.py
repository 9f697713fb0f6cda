"""How long work reports how far it is, as values, and how it is stopped.

Work calls a `Report` with one `Progress` at a time; a page, a terminal and a test all take the same values. This file
chooses no words (progress_words.py does) and draws nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from cna_core.errors import StoppedError


class Stage(StrEnum):
    """What a piece of work is doing. The values are stable: child processes and files may hold them."""

    STARTING = "starting"
    WAITING_FOR_MODEL = "waiting-for-model"
    """Other requests use the model; `place` says how many come first."""
    WAITING_FOR_LOADING = "waiting-for-loading"
    """Another model is being loaded."""
    WAITING_FOR_FILE = "waiting-for-file"
    """Another process makes the file that is needed."""
    FETCHING = "fetching"
    CHECKING_FILE = "checking-file"
    CONVERTING = "converting"
    CONVERTING_HEADER = "converting-header"
    CONVERTING_WEIGHTS = "converting-weights"
    CONVERTING_TOKENIZER = "converting-tokenizer"
    CONVERTING_WRITE = "converting-write"
    CONVERTING_AGAIN = "converting-again"
    """The converted copy was damaged, so it is made again."""
    LOADING = "loading"
    PACKING_WEIGHTS = "packing-weights"
    CAPTURING = "capturing-activations"
    CAPTURING_IN_HALVES = "capturing-activations-in-halves"
    """Memory ran short, so the batches were halved."""
    READING_KEPT = "reading-kept-results"
    """The results of an earlier run are read from disk; nothing is computed."""
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
    WRITING_ANSWERS = "writing-answers"
    ASKING_LOCAL_JUDGE = "asking-local-judge"
    STOPPING = "stopping"


BYTES = "bytes"
"""The unit of downloads and of files that are read."""


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Args:
        stage: what it is doing.
        done: how much of the stage is done, in units.
        total: how much there is; 0 while that is unknown.
        unit: what is counted, a plural noun: "prompts", "bytes". Empty: `done` and `total` give a share and nothing
            else.
        seconds_left: how long the rest takes at the present pace; None while that is unknown.
        subject: what the work is about: the name of a file, a model, a method or a prompt set.
        place: place in the queue for the model, 1 for the next in turn; None where nobody waits.
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
        """The part that is done, 0 to 1; 0 while it is unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0


Report = Callable[[Progress], None]
"""What long work calls to report how far it is. It may raise, which ends the work."""


def silent(progress: Progress) -> None:
    """A `Report` that does nothing: what None stands for."""


_default: list[Report] = [silent]


def report_by_default(report: Report | None) -> None:
    """Choose what calls in this process report to where they are given no `progress`; None: to nothing."""
    _default[0] = report or silent


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
    """Call `report`, or the default one where there is none, with a `Progress` of these values."""
    (report or _default[0])(Progress(stage, done, total, unit, subject=subject, place=place))


WINDOW_SECONDS = 8.0
"""The pace of a download is that of its last seconds, as lines become faster and slower; else it is that of all."""


def with_seconds_left(report: Report, clock: Callable[[], float] = time.monotonic) -> Report:
    """A report that adds the seconds left, from the pace of each count, and hands on to `report`.

    A count goes on while its unit and total stay the same and it does not fall; otherwise a new one begins.

    Args:
        clock: seconds that only grow; tests bring their own.
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
            seen.pop()  # only the first and the last count
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
    """Raise `StoppedError` once `stop` is set; call it between batches, layers, chunks and tokens."""
    if stop is not None and stop.is_set():
        raise StoppedError("Stopped. Finished work is saved.")

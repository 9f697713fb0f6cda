"""Tells how far a download is, how fast it goes, and how long it will take, in words. Knows no network."""

import time
from collections import deque
from collections.abc import Callable

from cna_core.models.disk import in_words
from cna_core.progress import Progress

WINDOW_SECONDS = 8.0
"""The speed is that of the last seconds, so that the time left follows a line that becomes faster or slower."""


def duration_in_words(seconds: float) -> str:
    """A time left as people say it: "a few seconds", "about 40 seconds", "about 3 minutes"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds / 5) * 5} seconds"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return "about a minute" if minutes == 1 else f"about {minutes} minutes"
    hours = round(seconds / 3600, 1)
    return f"about {hours:g} hour{'s' if hours != 1 else ''}"


class Meter:
    """Reports bytes to a `Progress`, with the time left once it is known.

    Args:
        progress: called with (bytes done, bytes in all, words).
        total_bytes: how many there will be; 0 while unknown.
        label: what is downloaded, as the words begin.
        clock: seconds that only grow; tests give their own.
    """

    def __init__(
        self, progress: Progress, total_bytes: int, label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.progress = progress
        self.total_bytes = total_bytes
        self.label = label
        self.clock = clock
        self.seen: deque[tuple[float, int]] = deque()

    def at(self, done_bytes: int) -> None:
        """Say that `done_bytes` are here."""
        now = self.clock()
        self.seen.append((now, done_bytes))
        while now - self.seen[0][0] > WINDOW_SECONDS and len(self.seen) > 2:
            self.seen.popleft()
        self.progress(done_bytes, self.total_bytes, f"{self.label}: {self._words(done_bytes)}")

    def _words(self, done_bytes: int) -> str:
        if not self.total_bytes:
            return in_words(done_bytes)
        words = f"{in_words(done_bytes)} of {in_words(self.total_bytes)}"
        (first_time, first_bytes), (last_time, last_bytes) = self.seen[0], self.seen[-1]
        if last_time - first_time < 1 or last_bytes <= first_bytes or done_bytes >= self.total_bytes:
            return words
        bytes_per_second = (last_bytes - first_bytes) / (last_time - first_time)
        return f"{words}, {duration_in_words((self.total_bytes - done_bytes) / bytes_per_second)} left"

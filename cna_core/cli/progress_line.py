"""Progress on stderr: one live line on a terminal, plain lines otherwise."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from cna_core.progress import Progress, Stage, with_seconds_left
from cna_core.progress_words import progress_in_words

PLAIN_LINE_SECONDS = 5.0
"""The minimum time between plain lines of the same stage."""


class ProgressLine:
    """A context manager that shows progress while it is open, and removes the live line afterwards.

    Example:
        with ProgressLine() as line:
            capture(model, contrast, progress=line.report)
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.report = with_seconds_left(self._draw)
        self._stage: Stage | None = None
        self._written_at = 0.0
        self._bars: Bars | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "ProgressLine":
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            words = TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            )
            # stdout is for results, so rich must not redirect it.
            self._bars = Bars(
                SpinnerColumn(), BarColumn(20), words, console=self.console, transient=True, redirect_stdout=False
            )
            self._task = self._bars.add_task("", total=None, visible=False)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _draw(self, progress: Progress) -> None:
        words = progress_in_words(progress)
        if self._bars is not None:
            total = progress.total or None  # without one the bar pulses
            self._bars.update(self._task, completed=progress.done, total=total, description=words, visible=True)
            return
        now = time.monotonic()
        begins, ends = progress.stage is not self._stage, bool(progress.total) and progress.done >= progress.total
        if begins or ends or now - self._written_at >= PLAIN_LINE_SECONDS:
            self._stage, self._written_at = progress.stage, now
            self.console.print(words, markup=False, soft_wrap=True)

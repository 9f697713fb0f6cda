"""A progress bar for notebooks and scripts: `show_progress`. Commands use cli/progress_line.py instead."""

from typing import Any

from cna_core.progress import Progress, report_by_default, with_seconds_left
from cna_core.progress_words import progress_in_words

BAR = "{desc} |{bar:24}| {elapsed}"


def show_progress(shown: bool = True) -> None:
    """Show a progress bar for every long call that is given no `progress` callback. Notebooks show it by default.

    Args:
        shown: whether to show it.
    """
    report_by_default(with_seconds_left(Bar().report) if shown else None)


class Bar:
    """A `Report` that draws a tqdm bar in a notebook or terminal, and removes it when a stage is complete."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._count: tuple[object, ...] = ()

    def report(self, progress: Progress) -> None:
        """Draw the progress. Stages without a total are not drawn, because their end is not reported."""
        count = (progress.stage, progress.total, progress.unit, progress.subject)
        if self._bar is not None and count != self._count:
            self._close()
        if not progress.total:
            return
        if self._bar is None and progress.done < progress.total:
            from tqdm.auto import tqdm

            self._bar, self._count = tqdm(total=progress.total, bar_format=BAR, leave=False), count
        if self._bar is None:
            return
        self._bar.n = progress.done
        self._bar.set_description_str(progress_in_words(progress))
        if progress.done >= progress.total:
            self._close()

    def _close(self) -> None:
        self._bar.close()
        self._bar = None

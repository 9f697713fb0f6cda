"""A progress bar for notebooks and scripts: `show_progress`. Commands have their own line (cli/progress_line.py)."""

from typing import Any

from cna_core.progress import Progress, report_by_default, with_seconds_left
from cna_core.progress_words import progress_in_words

BAR = "{desc} |{bar:24}| {elapsed}"


def show_progress(shown: bool = True) -> None:
    """Show a bar for every long call that is not given a `progress` of its own; in notebooks that is so from the start.

    Args:
        shown: False: show none.
    """
    report_by_default(with_seconds_left(Bar().report) if shown else None)


class Bar:
    """A `Report` that draws one bar, by tqdm, as fits a notebook or a terminal; it goes when a count is full."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._count: tuple[object, ...] = ()

    def report(self, progress: Progress) -> None:
        """Draw the progress; stages without a count are not drawn, since nobody says when they end."""
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

"""Commands that read what others wrote: `compare`, `table`."""

from pathlib import Path
from typing import Annotated

import typer

from cna_core.cli.terminal import write


def compare(
    first: Annotated[Path, typer.Argument(help="Circuit or run file.", metavar="A.json", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one of the same kind.", metavar="B.json", show_default=False)],
) -> None:
    """Compare two circuits (shared neurons, layers) or two runs (refusal and its costs at equal settings)."""
    from cna_core.evaluation.compare import comparison

    write(comparison(first, second), None)


def table(
    run: Annotated[Path, typer.Argument(help="Run file that evaluate wrote.", metavar="RUN.json", show_default=False)],
) -> None:
    """Print a run's figures as a Markdown table: a row for each method, circuit size and strength."""
    from cna_core.evaluation.runs import Run
    from cna_core.evaluation.tables import markdown_table

    write(markdown_table(Run.load(run)), None)

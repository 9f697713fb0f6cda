"""Commands that read result files: `compare`, `table`."""

from pathlib import Path
from typing import Annotated

import typer

from cna_core.cli.terminal import write


def compare(
    first: Annotated[Path, typer.Argument(help="Circuit or run file.", metavar="A.json", show_default=False)],
    second: Annotated[
        Path, typer.Argument(help="Another file of the same kind.", metavar="B.json", show_default=False)
    ],
) -> None:
    """Compare two circuits (shared neurons, layers) or two runs (refusals and side effects at equal settings)."""
    from cna_core.evaluation.compare import comparison

    write(comparison(first, second), None)


def table(
    run: Annotated[Path, typer.Argument(help="Run file written by evaluate.", metavar="RUN.json", show_default=False)],
) -> None:
    """Print a run's results as a Markdown table, one row for each method, circuit size and strength.

    Further tables show answers that were also judged before their end, at each length, and the rates that a blind
    review corrects."""
    from cna_core.evaluation.length_table import length_markdown
    from cna_core.evaluation.review import corrected_markdown
    from cna_core.evaluation.runs import Run
    from cna_core.evaluation.tables import markdown_table

    opened = Run.load(run)
    tables = (markdown_table(opened), length_markdown(opened), corrected_markdown(opened))
    write("\n\n".join(filter(None, tables)), None)

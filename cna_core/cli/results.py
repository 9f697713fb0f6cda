"""Commands that read result files: `compare`, `table`, `report`."""

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

    Further tables show answers that were also judged before their end, at each length, the rates that a blind review
    corrects, and refusals by the prompts' categories."""
    from cna_core.evaluation.category_table import category_markdown
    from cna_core.evaluation.length_table import length_markdown
    from cna_core.evaluation.review import corrected_markdown
    from cna_core.evaluation.runs import Run
    from cna_core.evaluation.tables import markdown_table

    opened = Run.load(run)
    tables = (markdown_table(opened), length_markdown(opened), corrected_markdown(opened), category_markdown(opened))
    write("\n\n".join(filter(None, tables)), None)


def report(
    file: Annotated[
        Path,
        typer.Argument(
            help="Circuit file written by attribute, or run file written by evaluate.",
            metavar="FILE.json",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    answers: Annotated[
        bool, typer.Option("--answers", help="Of a run: also the answers that changed, folded.")
    ] = False,
) -> None:
    """Write one HTML file with charts, tables, settings and hashes. It opens without a network. No model is loaded."""
    from cna_core.errors import CnaError

    try:
        from cna_core.reports.files import report_of_file
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "plotly":
            raise
        raise CnaError("Reports need Plotly: run pip install 'refusal-gate-explorer[app]'.") from error
    write(report_of_file(file, with_answers=answers).to_html(), out)

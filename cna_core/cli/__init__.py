"""The command line. Each command parses its options, calls the library and prints the result.

Each file holds a group of commands. COMMANDS lists them in the order of `--help`. Results go to stdout or to `--out`,
progress goes to stderr. Exit codes: 0 for success, 2 for bad input (explained on stderr), 130 if stopped.
"""

import sys
from typing import Annotated

import typer

from cna_core import __version__, threads
from cna_core.cli import answering, circuits, counting, evaluation, results, serving, storage, verifying, web_app
from cna_core.cli.registered import MethodsCommand
from cna_core.errors import CnaError

COMMANDS = (
    web_app.app,
    storage.models,
    storage.fetch,
    storage.cache,
    circuits.attribute,
    circuits.explain,
    counting.how_few,
    answering.generate,
    serving.serve,
    evaluation.evaluate,
    verifying.verify,
    results.compare,
    results.table,
    results.report,
)

command_line = typer.Typer(
    name="cna_core",
    help="Find the neurons behind a model's refusals (Contrastive Neuron Attribution), and scale them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
CLASSES = {answering.generate: MethodsCommand, evaluation.evaluate: evaluation.EvaluateCommand}
"""The command classes of commands whose help lists registered methods or measures."""
for command in COMMANDS:
    command_line.command(cls=CLASSES.get(command))(command)


def show_version(wanted: bool) -> None:
    """Print the version and exit, if `--version` was given."""
    if wanted:
        sys.stdout.write(f"refusal-gate-explorer {__version__}\n")
        raise typer.Exit


@command_line.callback(no_args_is_help=True)
def options_before_a_command(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that need no command. The program's help text is set in `command_line`."""


def main() -> None:
    """Run the command line and exit with its exit code."""
    threads.share_cores()
    try:
        code = command_line(standalone_mode=False)
    except CnaError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer") and hasattr(error, "exit_code"):
            error.show()  # type: ignore[attr-defined]
            sys.exit(error.exit_code)
        raise
    sys.exit(code or 0)

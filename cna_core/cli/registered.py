"""A command class whose help lists the registered methods."""

from typing import Any

from typer.core import TyperCommand


class MethodsCommand(TyperCommand):
    """A command whose help ends with the registered methods."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write them. The library is imported here, so that other help texts do not wait for torch."""
        from cna_core.interventions.registry import methods

        with formatter.section("Methods"):
            formatter.write_dl([(one.key, f"{one.label}: {one.title}.") for one in methods()])

"""Help that ends with what is registered: methods, and whatever else a command offers."""

from typing import Any

from typer.core import TyperCommand


class MethodsCommand(TyperCommand):
    """A command whose help ends with the methods that there are just now."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write them; the library is imported here, so that other help need not wait for torch."""
        from cna_core.interventions.registry import methods

        with formatter.section("Methods"):
            formatter.write_dl([(one.key, f"{one.label}: {one.title}.") for one in methods()])

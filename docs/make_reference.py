"""Write the API reference from docstrings to docs/reference: `make docs`."""

import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # so that it runs from anywhere without an installed package

import pdoc
import pdoc.render

import cna_core

OUTPUT = Path(__file__).resolve().parent / "reference"


def main() -> None:
    """Import all modules and render their docstrings."""
    for name in cna_core.__all__:  # pdoc needs the public names in the module, which imports them on first use
        setattr(cna_core, name, getattr(cna_core, name))
    rooms = [one.name for one in pkgutil.iter_modules(cna_core.__path__) if not one.name.startswith("_")]
    for room in rooms:
        importlib.import_module(f"cna_core.{room}")
    cna_core.__all__ = [*cna_core.__all__, *rooms]
    pdoc.render.configure(docformat="google", footer_text=f"Refusal Gate Explorer {cna_core.__version__}")
    pdoc.pdoc("cna_core", "!cna_core._app", output_directory=OUTPUT)
    sys.stdout.write(f"{OUTPUT / 'index.html'}\n")


if __name__ == "__main__":
    main()

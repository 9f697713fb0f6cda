"""Methods and measures from outside: files and modules named in an environment variable, imported once.

CNA_PLUGINS holds module names or paths of .py files, separated as in PATH. Whatever they register is then offered by
the app, the command line and the endpoint. They are code: name only what you trust.
"""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path

from cna_core.errors import CnaError

VARIABLE = "CNA_PLUGINS"


@cache
def load_plugins() -> None:
    """Import what CNA_PLUGINS names; only the first call does anything.

    Raises:
        CnaError: something named there cannot be imported; the message says what and why.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        try:
            _load_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except Exception as error:  # whatever a stranger's file raises
            raise CnaError(
                f"{VARIABLE} names {name}, which cannot be imported ({type(error).__name__}: {error})."
            ) from error


def _load_file(path: Path) -> None:
    specification = importlib.util.spec_from_file_location(f"cna_plugin_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise CnaError(f"{path} is no Python file.")
    specification.loader.exec_module(importlib.util.module_from_spec(specification))

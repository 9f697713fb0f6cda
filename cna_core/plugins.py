"""Plugins with further methods and measures: files and modules named in an environment variable, imported once.

CNA_PLUGINS holds module names or paths of .py files, separated as in PATH. The app, the command line and the endpoint
then offer what they register. Plugins are code: name only those that you trust.
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
    """Import the plugins that CNA_PLUGINS names. Only the first call has an effect.

    Raises:
        CnaError: a plugin cannot be imported.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        try:
            _load_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except Exception as error:  # a plugin's code may raise anything
            raise CnaError(
                f"{VARIABLE} names {name}, which cannot be imported ({type(error).__name__}: {error})."
            ) from error


def _load_file(path: Path) -> None:
    specification = importlib.util.spec_from_file_location(f"cna_plugin_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise CnaError(f"{path} is not a Python file.")
    specification.loader.exec_module(importlib.util.module_from_spec(specification))

"""The registry of methods, by key. It is the only list of methods; pages, sweeps, charts and commands use it.

A method registers itself where it is defined, so a new method is one new file: in this folder, where it is found
automatically, in a file that CNA_PLUGINS names (plugins.py), or in any module that is imported before its use.
"""

import importlib
import pkgutil
from functools import cache
from typing import TypeVar

from cna_core import interventions
from cna_core.errors import CnaError
from cna_core.interventions.intervention import Intervention
from cna_core.plugins import load_plugins

DEFAULT_METHOD = "scale"
"""The paper's method."""
TWIN = "random"
"""The key of random twins in files."""
DEFAULT_METHODS = (DEFAULT_METHOD, "caa")
"""The default methods of a sweep: the paper's method, and the one that the paper compares it with."""

_METHODS: dict[str, type[Intervention]] = {}
_ORDER = ("scale", "mean", "caa", "direction", "affine")

Method = TypeVar("Method", bound=type[Intervention])


def register(method: Method) -> Method:
    """Class decorator that registers a method by its key. A later one replaces an earlier one with the same key."""
    if not method.key.isidentifier() or method.key == TWIN:
        raise ValueError(f"{method.key!r} cannot be a method's key: use letters, digits and _ only, and not {TWIN!r}")
    _METHODS[method.key] = method
    return method


def unregister(key: str) -> None:
    """Remove a method that was registered from outside."""
    _METHODS.pop(key, None)


def methods() -> tuple[type[Intervention], ...]:
    """All methods in the order of lists and charts, the project's own first."""
    _find_own()
    own = [_METHODS[key] for key in _ORDER if key in _METHODS]
    return (*own, *(method for method in _METHODS.values() if method not in own))


def method(key: str) -> type[Intervention]:
    """The method with this key.

    Raises:
        CnaError: there is none.
    """
    _find_own()
    if key not in _METHODS:
        raise CnaError(f"There is no method {key!r}: choose from {', '.join(one.key for one in methods())}.")
    return _METHODS[key]


def label_of(key: str, twin_of: str | None = None) -> str:
    """A method's name on charts and in tables; a twin's includes its method's. Unknown keys are shown unchanged."""
    _find_own()
    named = twin_of or key
    label = _METHODS[named].label if named in _METHODS else named
    return f"{TWIN} for {label}" if twin_of else label


@cache
def _find_own() -> None:
    for module in pkgutil.iter_modules(interventions.__path__):
        importlib.import_module(f"{interventions.__name__}.{module.name}")
    load_plugins()

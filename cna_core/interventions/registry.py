"""The methods there are, by key. Whoever offers, runs, names or draws methods asks here; nobody else lists them.

A method registers itself where it is defined, so adding one is one file: in this folder, where it is found by itself,
in a file that CNA_PLUGINS names (plugins.py), or anywhere that is imported before it is used.
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
"""The paper's."""
TWIN = "random"
"""What files call the random twin of a method."""
DEFAULT_METHODS = (DEFAULT_METHOD, "caa")
"""What a sweep compares unless it is told otherwise: the paper's method, and the one it is compared with there."""

_METHODS: dict[str, type[Intervention]] = {}
_ORDER = ("scale", "mean", "caa", "direction", "affine")

Method = TypeVar("Method", bound=type[Intervention])


def register(method: Method) -> Method:
    """Class decorator: make a method known by its key; the last one registered under a key counts."""
    if not method.key.isidentifier() or method.key == TWIN:
        raise ValueError(f"{method.key!r} cannot be a method's key: letters, digits and _ alone, and not {TWIN!r}")
    _METHODS[method.key] = method
    return method


def unregister(key: str) -> None:
    """Forget a method that was registered from outside."""
    _METHODS.pop(key, None)


def methods() -> tuple[type[Intervention], ...]:
    """Every method, the project's own first, in the order in which lists and charts show them."""
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
        raise CnaError(f"{key!r} is no method; choose from {', '.join(one.key for one in methods())}.")
    return _METHODS[key]


def label_of(key: str, twin_of: str | None = None) -> str:
    """A method's name on charts and in tables; a twin's says whose it is. Unknown keys (old files) name themselves."""
    _find_own()
    named = twin_of or key
    label = _METHODS[named].label if named in _METHODS else named
    return f"{TWIN} for {label}" if twin_of else label


@cache
def _find_own() -> None:
    for module in pkgutil.iter_modules(interventions.__path__):
        importlib.import_module(f"{interventions.__name__}.{module.name}")
    load_plugins()

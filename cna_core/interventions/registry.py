"""The methods there are, by key. Whoever offers, runs, names or draws methods asks here; nobody else lists them."""

from typing import ClassVar

from cna_core.errors import CnaError

DEFAULT_METHOD = "scale"
"""The paper's."""
TWIN = "random"
"""What files call the random twin of a method."""
DEFAULT_METHODS = (DEFAULT_METHOD, "caa")
"""What a sweep compares unless it is told otherwise: the paper's method, and the one it is compared with there."""


class Intervention:
    """What is known of a method before it is fitted."""

    key: ClassVar[str]
    title: ClassVar[str]
    label: ClassVar[str]
    colour: ClassVar[str] = "other"
    uses_circuit: ClassVar[bool] = False


class _Scale(Intervention):
    key = DEFAULT_METHOD
    title = "Scale the circuit's neurons"
    label = "CNA"
    colour = "steered"
    uses_circuit = True


class _Addition(Intervention):
    key = "caa"
    title = "Add steering vectors to the residual stream (CAA)"
    label = "CAA"
    colour = "addition"


_METHODS: dict[str, type[Intervention]] = {one.key: one for one in (_Scale, _Addition)}


def methods() -> tuple[type[Intervention], ...]:
    """Every method, in the order in which lists and charts show them."""
    return tuple(_METHODS.values())


def method(key: str) -> type[Intervention]:
    """The method with this key.

    Raises:
        CnaError: there is none.
    """
    if key not in _METHODS:
        raise CnaError(f"{key!r} is no method; choose from {', '.join(_METHODS)}.")
    return _METHODS[key]


def label_of(key: str, twin_of: str | None = None) -> str:
    """A method's name on charts and in tables; a twin's says whose it is. Unknown keys (old files) name themselves."""
    named = twin_of or key
    label = _METHODS[named].label if named in _METHODS else named
    return f"{TWIN} for {label}" if twin_of else label

"""The measures there are, by key. Whoever takes, names, writes or draws measures asks here; nobody else lists them.

A measure registers itself where it is defined, so adding one is one file: in this folder, where it is found by itself,
in a file that CNA_PLUGINS names (plugins.py), or anywhere that is imported before it is used.
"""

import importlib
import pkgutil
from collections.abc import Container, Sequence
from functools import cache
from typing import TypeVar

from cna_core.errors import RunError
from cna_core.evaluation import measures as folder
from cna_core.evaluation.measures.contract import Measure, Preparation
from cna_core.evaluation.runs import Run, SetName
from cna_core.plugins import load_plugins

_MEASURES: dict[str, type[Measure]] = {}
_ORDER = (
    "refusal_rate",
    "locally_judged_refusal_rate",
    "judged_refusal_rate",
    "refusal_chance",
    "benign_refusal_rate",
    "judged_benign_refusal_rate",
    "borderline_refusal_rate",
    "judged_borderline_refusal_rate",
    "quality",
    "benign_quality",
    "perplexity",
    "benign_kl",
    "knowledge",
    "word_problems",
)
"""In which charts and tables show the project's own; a measure that is not named here comes after them."""

Kind = TypeVar("Kind", bound=type[Measure])


def register(measure: Kind) -> Kind:
    """Class decorator: make a measure known by its key; the last one registered under a key counts."""
    if not measure.key.isidentifier():
        raise ValueError(f"{measure.key!r} cannot be a measure's key: it is a field of run files; use letters and _")
    _MEASURES[measure.key] = measure
    return measure


def unregister(key: str) -> None:
    """Forget a measure that was registered from outside."""
    _MEASURES.pop(key, None)


def measures() -> tuple[type[Measure], ...]:
    """Every measure, in the order in which charts and tables show them."""
    _find_own()
    own = [_MEASURES[key] for key in _ORDER if key in _MEASURES]
    return (*own, *(measure for measure in _MEASURES.values() if measure not in own))


def measure(key: str) -> type[Measure]:
    """The measure with this key.

    Raises:
        RunError: there is none.
    """
    _find_own()
    if key not in _MEASURES:
        raise RunError(f"{key!r} is no measure; choose from {', '.join(one.key for one in measures())}.")
    return _MEASURES[key]


def usual_measures(sets: Container[SetName]) -> tuple[type[Measure], ...]:
    """What a run takes when nobody names measures: those that its prompt sets allow and that ask for nothing more."""
    return tuple(one for one in measures() if one.by_default and one.prompt_set in sets)


def measures_of(run: Run) -> tuple[type[Measure], ...]:
    """The measures that a run takes or has values of, in the order in which charts and tables show them.

    A measure that is not registered here, of a file from elsewhere, is called by its key.
    """
    fields = {name for point in run.points for name in point.fields}
    taken = [one for one in measures() if one.key in run.settings.measures or fields & {one.key, one.drawn_field()}]
    known = {one.key for one in measures()}
    others = [key for key in run.settings.measures if key not in known]
    others += sorted(name for name in fields if not name.endswith("_interval") and not _belongs(name, known))
    return (*taken, *(_named_by_key(key) for key in dict.fromkeys(others)))


def ready_measures(
    wanted: Sequence[str | Measure], preparation: Preparation, settings: dict[str, dict[str, object]]
) -> tuple[Measure, ...]:
    """Measures that are ready to observe, from keys or from instances that are ready already.

    Args:
        settings: of measures that have some, by key.

    Raises:
        CnaError: there is no such measure, or something it needs is not there.
        StoppedError: the preparation's `stop` was set.
    """
    ready = []
    for one in wanted:
        if isinstance(one, str):
            own = Preparation(
                preparation.model,
                preparation.questions,
                preparation.problems,
                settings.get(one, {}),
                preparation.progress,
                preparation.stop,
            )
            ready.append(measure(one).prepared(own))
        else:
            ready.append(one)
    return tuple(ready)


def _belongs(name: str, keys: Container[str]) -> bool:
    """Whether a field is one of these measures', or says something more of one of them ("knowledge_chance")."""
    parts = name.split("_")
    return any("_".join(parts[:count]) in keys for count in range(1, len(parts) + 1))


@cache
def _named_by_key(key: str) -> type[Measure]:
    return type("UnknownMeasure", (Measure,), {"key": key, "title": key, "__doc__": "Of a file from elsewhere."})


@cache
def _find_own() -> None:
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    load_plugins()

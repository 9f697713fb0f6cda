"""All measures by key. This is the only list of measures: everything else asks here.

A measure registers itself where it is defined, so a new measure is one new file: in this folder, where it is found
automatically, in a file that CNA_PLUGINS names (plugins.py), or in any module that is imported before its use.
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
"""The order in charts and tables; measures that are not in this list come after it."""

Kind = TypeVar("Kind", bound=type[Measure])


def register(measure: Kind) -> Kind:
    """Class decorator: register a measure under its key; a later one with the same key replaces it."""
    if not measure.key.isidentifier():
        raise ValueError(f"{measure.key!r} cannot be a measure's key: it is a field of run files; use letters and _")
    _MEASURES[measure.key] = measure
    return measure


def unregister(key: str) -> None:
    """Remove a measure from the registry."""
    _MEASURES.pop(key, None)


def measures() -> tuple[type[Measure], ...]:
    """All measures, in the order of charts and tables."""
    _find_own()
    own = [_MEASURES[key] for key in _ORDER if key in _MEASURES]
    return (*own, *(measure for measure in _MEASURES.values() if measure not in own))


def measure(key: str) -> type[Measure]:
    """The measure with this key.

    Raises:
        RunError: there is no such measure.
    """
    _find_own()
    if key not in _MEASURES:
        raise RunError(f"There is no measure {key!r}: choose from {', '.join(one.key for one in measures())}.")
    return _MEASURES[key]


def usual_measures(sets: Container[SetName]) -> tuple[type[Measure], ...]:
    """The default measures of a run: those that its prompt sets allow and that need no further settings."""
    return tuple(one for one in measures() if one.by_default and one.prompt_set in sets)


def measures_of(run: Run) -> tuple[type[Measure], ...]:
    """The measures that a run requested or has values of, in the order of charts and tables.

    A measure that is not registered here (in a file from elsewhere) has its key as its title.
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
    """Instances that can observe, from keys or from instances.

    Args:
        settings: the settings of measures that have any, by key.

    Raises:
        CnaError: there is no such measure, or something it needs is missing.
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
    """Whether a field belongs to one of these measures ("knowledge_chance" belongs to "knowledge")."""
    parts = name.split("_")
    return any("_".join(parts[:count]) in keys for count in range(1, len(parts) + 1))


@cache
def _named_by_key(key: str) -> type[Measure]:
    return type(
        "UnknownMeasure", (Measure,), {"key": key, "title": key, "__doc__": "A measure of a file from elsewhere."}
    )


@cache
def _find_own() -> None:
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    load_plugins()

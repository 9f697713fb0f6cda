"""Converts data of earlier versions: run files, journals, and the names of controls.

Before version 2, every curve was a "control": the circuit itself ("cna"), its random twin ("random"), or CAA ("caa").
Pure functions of plain data; this module knows nothing about models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cna_core.errors import RunError
from cna_core.interventions.registry import DEFAULT_METHOD, DEFAULT_METHODS, TWIN
from cna_core.shown import shown

RUN_1 = "cna-run/1"
_CONTROLS: dict[str, tuple[str, str | None]] = {
    "cna": (DEFAULT_METHOD, None),
    "random": (TWIN, DEFAULT_METHOD),
    "caa": ("caa", None),
}
"""Controls of version 1: the method of each, and the method whose twin it is."""


def run_of_version_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a cna-run/1 file with the names of methods and twins of cna-run/2; `format` is not changed.

    Raises:
        ValueError: it has a control that version 1 does not know.
    """
    run = dict(content)
    for name in ("points", "answers"):
        if isinstance(run.get(name), list):
            run[name] = [_with_method(entry) if isinstance(entry, dict) else entry for entry in run[name]]
    if isinstance(run.get("settings"), dict):
        settings = dict(run["settings"])
        controls = settings.pop("controls", [])
        if not isinstance(controls, list):
            raise ValueError("settings.controls is not a list")
        treatments = [_treatment(control) for control in ["cna", *controls]]
        settings["methods"] = list(dict.fromkeys(method for method, twin_of in treatments if twin_of is None))
        settings["controls"] = [twin_of for _, twin_of in treatments if twin_of is not None]
        settings["contrast_sha256"] = settings.pop("caa_prompts_sha256", None)
        run["settings"] = settings
    return run


def setting_of_journal_1(control: str, strength: float, fraction: float | None) -> dict[str, Any]:
    """The fields of a `Setting`, from an entry of a version 1 journal.

    Raises:
        ValueError: version 1 does not know the control.
    """
    method, twin_of = _treatment(control)
    return {"method": method, "strength": strength, "fraction": fraction, "twin_of": twin_of}


def methods_and_controls(
    methods: Sequence[str] | None, controls: bool | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods, and the methods whose random twins are measured, from the present or the old arguments.

    Args:
        methods: keys; None: the default methods, or those of the old arguments.
        controls: whether all twins are measured, or the methods whose twins are. The old form, used without `methods`:
            "random" (the circuit's twin) and "caa", in addition to the circuit itself.

    Raises:
        RunError: a control has an unknown name.
    """
    if isinstance(controls, bool):
        chosen = DEFAULT_METHODS if methods is None else tuple(methods)
        return chosen, chosen if controls else ()
    if methods is not None:
        return tuple(methods), tuple(methods) if TWIN in controls else tuple(controls)
    if unknown := [control for control in controls if control not in _CONTROLS]:
        raise RunError(f"{unknown[0]!r} is not a control: choose random (each method's random twin) or none.")
    treatments = [_CONTROLS[control] for control in _CONTROLS if control == "cna" or control in controls]
    chosen = tuple(method for method, twin_of in treatments if twin_of is None)
    return chosen, tuple(twin_of for _, twin_of in treatments if twin_of is not None)


def _with_method(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a point or an answer; an answer without a control belongs to the circuit."""
    changed = dict(entry)
    method, twin_of = _treatment(changed.pop("control", "cna"))
    return {**changed, "method": method, "twin_of": twin_of}


def _treatment(control: object) -> tuple[str, str | None]:
    if not isinstance(control, str) or control not in _CONTROLS:
        raise ValueError(f"its control {shown(repr(control), 60)} is not one of {', '.join(_CONTROLS)}")
    return _CONTROLS[control]

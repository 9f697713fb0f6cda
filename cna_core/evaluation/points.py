"""Summarises the records of prompts into a run's points and answers. Pure functions."""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

from cna_core.evaluation.journal import Record, cells
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.runs import Point, RunAnswer, SetName
from cna_core.evaluation.setting import BASELINE, Setting, Treatment


def points_of(
    settings: Sequence[Setting],
    fractions: Sequence[float],
    measures: Sequence[type[Measure]],
    records: Sequence[Record],
) -> tuple[Point, ...]:
    """A point for each setting that has records, in the settings' order; the baseline's is repeated for every curve.

    Args:
        settings: the baseline and all other settings.
        fractions: the circuit sizes, for the baseline's points.
        measures: the measures to summarise; each receives only its own observations, by prompt.
        records: the records so far.
    """
    tables = {
        (measure.reads, measure.prompt_set): cells(records, measure.reads, measure.prompt_set) for measure in measures
    }
    harmful = cells(records, "answers", "harmful")
    points = []
    for setting in settings:
        fields: dict[str, Any] = {}
        for measure in measures:
            table = tables[measure.reads, measure.prompt_set]
            mine, before = table.get(setting, {}), table.get(BASELINE, {})
            taken = [prompt for prompt, record in mine.items() if measure.key in record.observations]
            if taken:
                observations = [mine[prompt].observations[measure.key] for prompt in taken]
                paired = [before[prompt].observations[measure.key] for prompt in taken if prompt in before]
                fields |= measure.summarise(observations, paired)
        if fields:
            prompts = len(harmful.get(setting, {}))
            points += [
                Point(
                    method=treatment.method,
                    twin_of=treatment.twin_of,
                    strength=setting.strength,
                    fraction=fraction,
                    circuit=treatment.circuit,
                    prompts=prompts,
                    **fields,
                )
                for treatment, fraction in _curves_through(setting, settings, fractions)
            ]
    return tuple(points)


def answers_of(
    settings: Sequence[Setting], measures: Sequence[type[Measure]], records: Iterable[Record]
) -> tuple[RunAnswer, ...]:
    """All answers with the measures' fields, by set, then by prompt, in the settings' order."""
    order = {setting: place for place, setting in enumerate(settings)}
    written = [record for record in records if record.text is not None and record.setting in order]
    sets = get_args(SetName)
    written.sort(key=lambda record: (sets.index(record.prompt_set), record.prompt, order[record.setting]))
    return tuple(_answer(record, measures) for record in written)


def _curves_through(
    setting: Setting, settings: Sequence[Setting], fractions: Sequence[float]
) -> list[tuple[Treatment, float | None]]:
    """The curves that contain a setting: its own curve, or all curves for the baseline."""
    if not setting.is_baseline:
        return [(setting.treatment, setting.fraction)]
    every = dict.fromkeys((other.treatment, other.fraction) for other in settings if not other.is_baseline)
    return list(every) or [(BASELINE.treatment, fraction) for fraction in fractions]


def _answer(record: Record, measures: Sequence[type[Measure]]) -> RunAnswer:
    said: dict[str, Any] = {}
    if record.thought is not None:
        said |= {"thought": record.thought, "unfinished": record.unfinished}
    for measure in measures:
        if measure.key in record.observations:
            said |= measure.of_answer(record.observations[measure.key])
    return RunAnswer(
        prompt=record.prompt,
        set=record.prompt_set,
        method=record.setting.method,
        twin_of=record.setting.twin_of,
        strength=record.setting.strength,
        fraction=record.setting.fraction,
        circuit=record.setting.circuit,
        text=record.text or "",
        **said,
    )

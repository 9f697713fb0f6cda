"""Tables of a run: one row per point, and the answers that flipped, side by side. Pure functions of a run."""

from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from cna_core.evaluation.intervals import Estimate, change_of_rate
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.numbers import NUMBER, SHARE
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Point, Run, RunAnswer, SetName
from cna_core.evaluation.setting import BASELINE, Setting

Direction = Literal["all", "answered now", "refused now"]
CHANGES = ("change", "change, low", "change, high")
"""Columns of `runs_beside`: the paired change of refusal."""


def points_table(run: Run) -> pd.DataFrame:
    """One row per point: method, size, strength, then each measure with the ends of its interval.

    If a measure has a paired change from the baseline, it is next to the value.
    """
    columns = [
        (field, title)
        for measure in measures_of(run)
        for field, title in (
            (measure.key, measure.column_title()),
            (f"{measure.key}_change", f"{measure.column_title()} change"),
            *((f"{measure.key}_{name}", title) for name, title in measure.further.items()),
        )
        if any(point.estimate(field) is not None for point in run.points)
    ]
    rows = []
    for point in run.points:
        row: dict[str, object] = {
            "method": point.treatment.label,
            "circuit, %": None if point.fraction is None else 100 * point.fraction,
            "strength": point.strength,
            "prompts": point.prompts,
        }
        for field, title in columns:
            estimate = point.estimate(field)
            row[title] = estimate.value if estimate else None
            row[f"{title}, low"] = estimate.low if estimate else None
            row[f"{title}, high"] = estimate.high if estimate else None
        rows.append(row)
    return pd.DataFrame(rows)


def markdown_table(run: Run) -> str:
    """The run's numbers as Markdown: one row per point, 95 % intervals in brackets, only measures with values.

    Measures with `drawn_as_change`, such as knowledge, show the value and the change from the baseline.
    """
    taken = _shown(run)
    lines = [["method", "circuit", "strength"]]
    for measure in taken:
        lines[0] += [_head(measure), *_further(run, measure).values()]
    lines.append(["---"] * len(lines[0]))
    baseline = run.baseline
    rows = [("baseline", "", "0", baseline)] if baseline else []
    for point in run.points:
        if point.strength != 0:
            size = "" if point.fraction is None else f"{100 * point.fraction:g} %"
            rows.append((point.treatment.label, size, NUMBER.value(point.strength), point))
    for *words, point in rows:
        cells = []
        for measure in taken:
            cells.append(_cell(measure, point))
            for field in _further(run, measure):
                further = point.estimate(field)
                cells.append("" if further is None else measure.numbers.estimate(further))
        lines.append([*words, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def answers_beside(
    run: Run, setting: Setting, prompt_set: SetName = "harmful", direction: Direction = "all", only_flipped: bool = True
) -> pd.DataFrame:
    """The baseline's answers next to those of a setting, prompt by prompt.

    Columns: prompt (its index), request, baseline, steered, before and after ("refused", "answered", "neither",
    "declined late": the answer begins and then declines; or "unfinished": a thought did not end, which is no flip).

    Args:
        setting: the setting to compare with the baseline.
        prompt_set: the set of the answers.
        direction: only flips to "answered now", or only flips to "refused now".
        only_flipped: False includes prompts with the same verdict.
    """
    texts = run.settings.texts_of(prompt_set)
    mine = [answer for answer in run.answers if answer.prompt_set == prompt_set]
    before = {answer.prompt: answer for answer in mine if answer.setting == BASELINE}
    after = {answer.prompt: answer for answer in mine if answer.setting == setting}
    rows = []
    for prompt in sorted(before.keys() & after.keys()):
        first, second = before[prompt], after[prompt]
        flipped = first.refused != second.refused and not (first.unfinished or second.unfinished)
        if only_flipped and not flipped:
            continue
        if direction != "all" and not (flipped and second.refused == (direction == "refused now")):
            continue
        rows.append(
            {
                "prompt": prompt,
                "request": texts[prompt] if prompt < len(texts) else f"prompt {prompt + 1}",
                "baseline": first.text,
                "steered": second.text,
                "before": verdict_of(first),
                "after": verdict_of(second),
            }
        )
    columns = ["prompt", "request", "baseline", "steered", "before", "after"]
    return pd.DataFrame(rows, columns=columns)


def runs_beside(first: Run, second: Run) -> pd.DataFrame:
    """Two runs at their common settings: the change of refusal with its 95 % interval, and each measure twice.

    The change is paired by prompt if both runs have the same harmful prompts, and empty otherwise. Sizes are matched as
    shares of all neurons, so runs of different models can be compared. `beside_formats` has the columns' formats.
    """
    pairs = shared_points(first, second)
    both = _of_both(first, second)
    same = _prompts_hash(first) is not None and _prompts_hash(first) == _prompts_hash(second)
    rows = []
    for before, after in pairs:
        row: dict[str, object] = {
            "method": before.treatment.label,
            "circuit, %": None if before.fraction is None else 100 * before.fraction,
            "strength": before.strength,
        }
        change = _paired_change(first, second, before.setting) if same else None
        row |= dict(zip(CHANGES, change or (None, None, None), strict=True))
        for measure in both:
            for point, which in ((before, "first"), (after, "second")):
                estimate = point.estimate(measure.drawn_field())
                row[f"{measure.column_title()}, {which}"] = estimate.value if estimate else None
        rows.append(row)
    return pd.DataFrame(rows)


def beside_formats(first: Run, second: Run) -> dict[str, Callable[[float], str]]:
    """The number formats of the columns of `runs_beside`."""
    formats: dict[str, Callable[[float], str]] = {"circuit, %": "{:g}".format, "strength": "{:g}".format}
    formats |= dict.fromkeys(CHANGES, SHARE.change)
    for measure in _of_both(first, second):
        formats |= dict.fromkeys((f"{measure.column_title()}, {which}" for which in ("first", "second")), measure.say)
    return formats


def shared_points(first: Run, second: Run) -> list[tuple[Point, Point]]:
    """The points of two runs at their common settings, in the order of the first run's methods."""
    ours, theirs = (
        {(point.treatment, point.fraction, point.strength): point for point in run.points} for run in (first, second)
    )
    order = first.treatments
    shared = sorted(ours.keys() & theirs.keys(), key=lambda at: (order.index(at[0]), at[1] or 0.0, at[2]))
    return [(ours[at], theirs[at]) for at in shared]


def steered_settings(run: Run, prompt_set: SetName = "harmful") -> Sequence[Setting]:
    """The settings with answers to a set, without the baseline, in the order of the run."""
    return list(
        dict.fromkeys(
            answer.setting
            for answer in run.answers
            if answer.prompt_set == prompt_set and not answer.setting.is_baseline
        )
    )


def _shown(run: Run) -> list[type[Measure]]:
    """The measures of a short table: those with values and with `shown`."""
    return [
        measure
        for measure in measures_of(run)
        if measure.shown and any(point.estimate(measure.drawn_field()) is not None for point in run.points)
    ]


def _of_both(first: Run, second: Run) -> list[type[Measure]]:
    return list(dict.fromkeys([*_shown(first), *_shown(second)]))


def _head(measure: type[Measure]) -> str:
    title = measure.column_title()
    if measure.drawn_as_change:
        unit = measure.numbers.change_unit
        return f"{title}, and change" + (f" in {unit}" if unit else "")
    return f"{title}, {measure.unit}" if measure.unit else title


def _cell(measure: type[Measure], point: Point) -> str:
    numbers, value = measure.numbers, point.estimate(measure.key)
    if not measure.drawn_as_change or (point.strength == 0 and value is not None):
        return "" if value is None else numbers.estimate(value)
    change = point.estimate(measure.drawn_field())
    known = (numbers.value(value.value) if value else "", numbers.change_estimate(change) if change else "")
    return ", ".join(part for part in known if part)


def verdict_of(answer: RunAnswer) -> str:
    """What the detector said of an answer, in one or two words; "" where it was not asked."""
    if answer.refused is None:
        return ""
    if answer.refused:
        return "refused"
    if answer.unfinished:
        return "unfinished"
    if answer.neither:
        return "neither"
    return "declined late" if answer.late else "answered"


def _further(run: Run, measure: type[Measure]) -> dict[str, str]:
    """What a measure on harmful prompts says beside its value, by field; `points_table` has it for other sets too."""
    if measure.prompt_set != "harmful":
        return {}
    fields = {f"{measure.key}_{name}": title for name, title in measure.further.items()}
    return {field: title for field, title in fields.items() if any(point.estimate(field) for point in run.points)}


def _prompts_hash(run: Run) -> str | None:
    used = run.settings.prompts.get("harmful")
    return used.sha256 if used else None


def _paired_change(first: Run, second: Run, setting: Setting) -> Estimate | None:
    """The change of the refusal rate over the prompts that both runs answered at a setting; None if there are none."""
    verdicts = [
        {
            answer.prompt: bool(answer.refused)
            for answer in run.answers
            if answer.prompt_set == "harmful" and answer.setting == setting and answer.refused is not None
        }
        for run in (first, second)
    ]
    shared = sorted(verdicts[0].keys() & verdicts[1].keys())
    if not shared:
        return None
    return change_of_rate([verdicts[0][prompt] for prompt in shared], [verdicts[1][prompt] for prompt in shared])

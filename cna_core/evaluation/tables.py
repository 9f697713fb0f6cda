"""A run as tables: one row a point, and the answers that flipped, side by side. Pure functions of a run."""

from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from cna_core.evaluation.intervals import Estimate, change_of_rate
from cna_core.evaluation.runs import Run, SetName
from cna_core.evaluation.setting import BASELINE, Setting

Direction = Literal["all", "answered now", "refused now"]

MEASURES = {
    "refusal_rate": "refused",
    "refusal_chance": "refusal chance",
    "benign_refusal_rate": "benign refused",
    "borderline_refusal_rate": "over-refused",
    "quality": "quality",
    "benign_quality": "benign quality",
    "perplexity": "perplexity",
    "benign_kl": "benign KL",
    "knowledge": "knowledge",
    "knowledge_change": "knowledge change",
}
"""Measures of this project and what tables call them; those plugged in are called by their field."""


def points_table(run: Run) -> pd.DataFrame:
    """One row a point: method, size, strength, then each measure that was taken with the ends of its interval."""
    taken = [name for name in MEASURES if any(getattr(point, name) is not None for point in run.points)]
    extra = {name for point in run.points for name in point.model_extra or {}}
    taken += sorted(name for name in extra if not name.endswith("_interval"))
    rows = []
    for point in run.points:
        row: dict[str, object] = {
            "method": point.treatment.label,
            "circuit, %": None if point.fraction is None else 100 * point.fraction,
            "strength": point.strength,
            "prompts": point.prompts,
        }
        for name in taken:
            estimate, title = point.estimate(name), MEASURES.get(name, name)
            row[title] = estimate.value if estimate else None
            row[f"{title}, low"] = estimate.low if estimate else None
            row[f"{title}, high"] = estimate.high if estimate else None
        rows.append(row)
    return pd.DataFrame(rows)


def markdown_table(run: Run) -> str:
    """The run's figures as Markdown: a row a point, 95 % intervals in brackets; what was not measured has no column.

    Knowledge is given as its change from the baseline in points, paired question by question.
    """
    taken = [name for name in _MARKDOWN if any(getattr(point, name) is not None for point in run.points)]
    lines = [["method", "circuit", "strength", *(_MARKDOWN[name][0] for name in taken)]]
    lines.append(["---"] * len(lines[0]))
    baseline = run.baseline
    rows = [("baseline", "", "0", baseline)] if baseline else []
    for point in run.points:
        if point.strength != 0:
            size = "" if point.fraction is None else f"{100 * point.fraction:g} %"
            rows.append((point.treatment.label, size, _signed(f"{point.strength:g}"), point))
    for *words, point in rows:
        estimates = [point.estimate(name) for name in taken]
        cells = ["" if one is None else _MARKDOWN[name][1](one) for name, one in zip(taken, estimates, strict=True)]
        lines.append([*words, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def answers_beside(
    run: Run, setting: Setting, prompt_set: SetName = "harmful", direction: Direction = "all", only_flipped: bool = True
) -> pd.DataFrame:
    """The baseline's answers beside those of a setting, prompt by prompt.

    Columns: prompt (its place), request, baseline, steered, before and after ("refused", "answered").

    Args:
        setting: what to hold the baseline against.
        prompt_set: which set's answers.
        direction: flips to "answered now" or to "refused now" alone.
        only_flipped: False shows prompts whose verdict stayed, too.
    """
    texts = run.settings.prompts[prompt_set].texts if prompt_set in run.settings.prompts else ()
    mine = [answer for answer in run.answers if answer.prompt_set == prompt_set]
    before = {answer.prompt: answer for answer in mine if answer.setting == BASELINE}
    after = {answer.prompt: answer for answer in mine if answer.setting == setting}
    rows = []
    for prompt in sorted(before.keys() & after.keys()):
        first, second = before[prompt], after[prompt]
        flipped = first.refused != second.refused
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
                "before": _verdict(first.refused),
                "after": _verdict(second.refused),
            }
        )
    columns = ["prompt", "request", "baseline", "steered", "before", "after"]
    return pd.DataFrame(rows, columns=columns)


def runs_beside(first: Run, second: Run) -> pd.DataFrame:
    """Two runs at the settings that both have: refusal in each, and the change with its 95 % interval.

    Where both asked the same harmful prompts, the change is paired prompt by prompt; else it is empty.
    Sizes are matched as shares of all neurons, so runs of two models can be compared.
    """
    ours = {(point.treatment, point.fraction, point.strength): point for point in first.points}
    theirs = {(point.treatment, point.fraction, point.strength): point for point in second.points}
    same = _prompts_hash(first) is not None and _prompts_hash(first) == _prompts_hash(second)
    rows = []
    order = first.treatments
    shared = sorted(ours.keys() & theirs.keys(), key=lambda at: (order.index(at[0]), at[1] or 0.0, at[2]))
    for treatment, fraction, strength in shared:
        before, after = ours[treatment, fraction, strength], theirs[treatment, fraction, strength]
        change = _paired_change(first, second, before.setting) if same else None
        rows.append(
            {
                "method": treatment.label,
                "circuit, %": None if fraction is None else 100 * fraction,
                "strength": strength,
                "refused, first": before.refusal_rate,
                "refused, second": after.refusal_rate,
                "change": change.value if change else None,
                "change, low": change.low if change else None,
                "change, high": change.high if change else None,
                "quality, first": before.quality,
                "quality, second": after.quality,
            }
        )
    return pd.DataFrame(rows)


def steered_settings(run: Run, prompt_set: SetName = "harmful") -> Sequence[Setting]:
    """The settings beside the baseline that have answers to a set, in the order of the run."""
    return list(
        dict.fromkeys(
            answer.setting
            for answer in run.answers
            if answer.prompt_set == prompt_set and not answer.setting.is_baseline
        )
    )


def _signed(number: str) -> str:
    return number.replace("-", "−")


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} ({estimate.low:.3g}–{estimate.high:.3g})"


def _change(estimate: Estimate) -> str:
    return _signed(f"{100 * estimate.value:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})")


_MARKDOWN: dict[str, tuple[str, Callable[[Estimate], str]]] = {
    "refusal_rate": ("refused", _share),
    "benign_refusal_rate": ("benign refused", _share),
    "borderline_refusal_rate": ("over-refused", _share),
    "quality": ("quality", _number),
    "perplexity": ("perplexity", _number),
    "benign_kl": ("benign KL, nats", _number),
    "knowledge_change": ("knowledge, change in points", _change),
}


def _verdict(refused: bool | None) -> str:
    return {True: "refused", False: "answered", None: ""}[refused]


def _prompts_hash(run: Run) -> str | None:
    used = run.settings.prompts.get("harmful")
    return used.sha256 if used else None


def _paired_change(first: Run, second: Run, setting: Setting) -> Estimate | None:
    """Change of the refusal rate over the prompts that both runs answered at a setting; None where there are none."""
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

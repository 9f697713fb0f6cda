"""Refusal by category of the prompts, as tables. Pure functions of a run."""

import pandas as pd

from cna_core.evaluation.intervals import Estimate
from cna_core.evaluation.measures.numbers import SHARE
from cna_core.evaluation.refusal import wilson_interval
from cna_core.evaluation.runs import Run, SetName

NO_CATEGORY = "none"


def category_table(run: Run, prompt_set: SetName = "harmful") -> pd.DataFrame:
    """One row for each setting and category: how many of its prompts were answered and refused, with Wilson intervals.

    Columns: method, "circuit, %", strength, category, prompts, refused, and "refused, low" and "refused, high".
    Empty where the prompts have no categories.
    """
    used = run.settings.prompts.get(prompt_set)
    if used is None or not used.categories:
        return pd.DataFrame()
    counts: dict[tuple[str, float | None, float, str], list[bool]] = {}
    for answer in run.answers:
        if answer.prompt_set == prompt_set and answer.refused is not None and answer.prompt < len(used.categories):
            name = "baseline" if answer.strength == 0 else answer.treatment.label
            percent = None if answer.fraction is None else 100 * answer.fraction
            kind = used.categories[answer.prompt] or NO_CATEGORY
            counts.setdefault((name, percent, answer.strength, kind), []).append(answer.refused)
    rows = []
    for (method, size, strength, category), refused in counts.items():
        low, high = wilson_interval(sum(refused), len(refused))
        rate = sum(refused) / len(refused)
        row = {"method": method, "circuit, %": size, "strength": strength, "category": category}
        rows.append(row | {"prompts": len(refused), "refused": rate, "refused, low": low, "refused, high": high})
    return pd.DataFrame(rows)


def category_markdown(run: Run) -> str:
    """The same as Markdown: a row a setting, a column a category; "" where the prompts have no categories."""
    table = category_table(run)
    if table.empty:
        return ""
    counts = table.drop_duplicates("category").set_index("category")["prompts"]
    names = list(counts.index)
    lines = [
        ["method", "circuit", "strength", *(f"{name} ({counts[name]})" for name in names)],
        ["---"] * (3 + len(names)),
    ]
    for (method, size, strength), part in table.groupby(["method", "circuit, %", "strength"], dropna=False, sort=False):
        said = {
            row["category"]: SHARE.estimate(Estimate(row["refused"], row["refused, low"], row["refused, high"]))
            for row in part.to_dict("records")
        }
        words = [str(method), "" if pd.isna(size) else f"{size:g} %", f"{strength:g}".replace("-", "−")]
        lines.append([*words, *(said.get(name, "") for name in names)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

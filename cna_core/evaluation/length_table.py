"""Tables of a run's results at 32, 64, 128 and 256 tokens of its answers. Pure functions of a run.

Every answer was generated once and cut to these lengths. The tables show answers that comply at 32 tokens and decline
by 128, and answers that begin well and then repeat themselves.
"""

import pandas as pd

from cna_core.evaluation.measures import lengths as judged
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.lengths import at_length
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Point, Run


def lengths_of(run: Run) -> tuple[int, ...]:
    """The lengths in tokens at which the run's answers were judged, ascending; empty if there is only one length."""
    fields = {name for point in run.points for name in point.fields}
    before = tuple(
        length for length in judged.JUDGED_AT if any(at_length(one.key, length) in fields for one in measures_of(run))
    )
    return (*before, run.settings.max_new_tokens) if before else ()


def length_table(run: Run) -> pd.DataFrame:
    """One row for each point and length: method, size, strength, tokens, then each measure with its 95 % interval.

    The baseline occurs once. Empty if the run judged its answers at only one length.
    """
    rows = []
    lengths, columns = lengths_of(run), _columns(run)
    for point in _points(run):
        for length in lengths:
            row: dict[str, object] = {
                "method": _name(point),
                "circuit, %": None if point.fraction is None else 100 * point.fraction,
                "strength": point.strength,
                "tokens": length,
            }
            for field, (title, _) in columns.items():
                estimate = point.estimate(_field(run, field, length))
                row[title] = estimate.value if estimate else None
                row[f"{title}, low"] = estimate.low if estimate else None
                row[f"{title}, high"] = estimate.high if estimate else None
            rows.append(row)
    return pd.DataFrame(rows)


def length_markdown(run: Run) -> str:
    """The same as Markdown, one row per point, such as "29 % · 31 % · 31 %"; "" if there is only one length."""
    lengths = lengths_of(run)
    if not lengths:
        return ""
    columns = {field: column for field, column in _columns(run).items() if column[1].prompt_set == "harmful"}
    words = " · ".join(map(str, lengths))
    lines = [["method", "circuit", "strength", *(f"{title} at {words}" for title, _ in columns.values())]]
    lines.append(["---"] * len(lines[0]))
    for point in _points(run):
        size = "" if point.fraction is None or point.strength == 0 else f"{100 * point.fraction:g} %"
        said = []
        for field, (_, measure) in columns.items():
            found = [point.estimate(_field(run, field, length)) for length in lengths]
            said.append(" · ".join("–" if one is None else measure.numbers.value(one.value) for one in found))
        lines.append([_name(point), size, f"{point.strength:g}".replace("-", "−"), *said])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(run: Run) -> dict[str, tuple[str, type[Measure]]]:
    """The fields with several lengths: their titles and measures."""
    fields = {name for point in run.points for name in point.fields}
    found: dict[str, tuple[str, type[Measure]]] = {}
    for measure in measures_of(run):
        titles = {measure.key: measure.column_title()}
        titles |= {f"{measure.key}_{name}": title for name, title in measure.further.items()}
        for field, title in titles.items():
            if any(at_length(field, length) in fields for length in judged.JUDGED_AT):
                found[field] = title, measure
    return found


def _points(run: Run) -> list[Point]:
    baseline = run.baseline
    return ([baseline] if baseline else []) + [point for point in run.points if point.strength != 0]


def _field(run: Run, field: str, length: int) -> str:
    return field if length == run.settings.max_new_tokens else at_length(field, length)


def _name(point: Point) -> str:
    return "baseline" if point.strength == 0 else point.treatment.label

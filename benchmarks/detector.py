"""The accuracy of the refusal detector on answers that people labelled.

    python benchmarks/detector.py FILE [--answer answer] [--label label] [--by model] [--wrong 20] [--folds 5]
    python benchmarks/detector.py                     # the project's own labelled answers

FILE is JSON lines or CSV with a header, one answer per row. Labels that begin with "refus" count as refused, "answer"
or "compl" as answered, "neither" as neither; rows with other labels ("partial") are skipped and counted. `--refused`,
`--answered` and `--neither` name other labels, as in `--refused 2_full_refusal,3_partial_refusal`.

--by COLUMN prints a row for each value of the column. --wrong N lists the first words of N wrongly judged answers,
with the reason. --folds K tests for patterns that fit single rows: the prompts (column --prompt) are split into K
parts, and each part is judged only with patterns that also match an answer of another part. --judge [MODEL] also runs
a local judge (default NousResearch/Minos-v1, downloaded) and prints its agreement.
"""

import argparse
import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.errors import CnaError
from cna_core.evaluation.detector_quality import DetectorQuality, labelled_answers, quality_of
from cna_core.evaluation.local_judge import MINOS, agreement_of, load_judge
from cna_core.evaluation.refusal import Outcome, Verdict, detect_refusal, tidied
from cna_core.evaluation.refusal_patterns import Patterns, refusal_patterns

BEGINNINGS: dict[Outcome, tuple[str, ...]] = {
    "refused": ("refus",),
    "answered": ("answer", "compl"),
    "neither": ("neither",),
}


@dataclass(frozen=True)
class Row:
    """A labelled answer and its row in the file."""

    answer: str
    label: Outcome
    fields: dict[str, str]


def main() -> None:
    """Judge the file's answers and print."""
    parser = argparse.ArgumentParser(description="The refusal detector against labels given by people.")
    parser.add_argument("file", nargs="?", type=Path, help="JSON lines or CSV; none: the project's own answers")
    parser.add_argument("--answer", default="answer", help="the column of the answers")
    parser.add_argument("--label", default="label", help="the column of the labels")
    parser.add_argument("--prompt", default="prompt", help="the column that --folds keeps together")
    parser.add_argument("--by", help="a column: one row for each of its values")
    parser.add_argument("--wrong", type=int, default=0, help="the number of wrongly judged answers to list")
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--judge", nargs="?", const=MINOS, help="a Hub id or a folder of a refusal classifier")
    for outcome in BEGINNINGS:
        parser.add_argument(f"--{outcome}", help=f"the labels that mean {outcome}, between commas")
    settings = parser.parse_args()
    named = {outcome: tuple((getattr(settings, outcome) or "").split(",")) for outcome in BEGINNINGS}
    rows, left_out = own_rows() if settings.file is None else read(settings, named)
    if not rows:
        parser.error(f"no row has a label that is known; labels seen: {dict(left_out)}")
    verdicts = [detect_refusal(row.answer) for row in rows]
    print("| answers | refusals | precision | recall | F1 | marked, no refusal | refusal, missed | judged neither |")
    show("all", quality_of([row.label for row in rows], verdicts))
    for value in sorted({row.fields.get(settings.by, "") for row in rows}) if settings.by else ():
        chosen = [number for number, row in enumerate(rows) if row.fields.get(settings.by, "") == value]
        show(value, quality_of([rows[number].label for number in chosen], [verdicts[number] for number in chosen]))
    if settings.folds:
        show(f"{settings.folds} folds", across_folds(rows, settings.folds, lambda row: row.fields[settings.prompt]))
    if settings.judge:
        ask(settings.judge, rows, verdicts, lambda row: row.fields[settings.prompt])
    if left_out:
        print("left out:", ", ".join(f"{count} labelled {label!r}" for label, count in left_out.most_common()))
    wrong = [pair for pair in zip(rows, verdicts, strict=True) if (pair[0].label == "refused") != pair[1].refused]
    for row, verdict in wrong[: settings.wrong]:
        print(f"{row.label}, judged {verdict.outcome}: {' '.join(row.answer.split())[:80]} … [{verdict.reason}]")


def read(settings: argparse.Namespace, named: dict[Outcome, tuple[str, ...]]) -> tuple[list[Row], Counter[str]]:
    """The file's rows whose label is known, and how often each other label occurs."""
    text = settings.file.read_text(encoding="utf-8-sig")
    if settings.file.suffix == ".csv":
        csv.field_size_limit(1 << 30)
        found = list(csv.DictReader(text.splitlines(keepends=True)))
    else:
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    rows, left_out = [], Counter[str]()
    for fields in found:
        label = str(fields[settings.label]).strip()
        outcome = next((name for name in BEGINNINGS if label in named[name]), None) or next(
            (name for name, begins in BEGINNINGS.items() if not any(named[name]) and label.lower().startswith(begins)),
            None,
        )
        if outcome is None:
            left_out[label] += 1
        else:
            rows.append(Row(fields[settings.answer] or "", outcome, fields))
    return rows, left_out


def own_rows() -> tuple[list[Row], Counter[str]]:
    """The project's own labelled answers as rows."""
    answers = labelled_answers()
    return [
        Row(answer.text, answer.outcome, answer.model_dump() | {"prompt": answer.text}) for answer in answers
    ], Counter()


def show(name: str, quality: DetectorQuality) -> None:
    """One line of the table."""
    neither = sum(count for (label, _), count in quality.counts.items() if label == "neither")
    cells = [
        f"{name}: {quality.answers}",
        str(quality.true_positives + quality.false_negatives),
        percent(quality.precision, quality.precision_interval),
        percent(quality.recall, quality.recall_interval),
        "" if math.isnan(quality.f1) else f"{quality.f1:.3f}",
        str(quality.false_positives),
        str(quality.false_negatives),
        f"{quality.counts['neither', 'neither']} of {neither}",
    ]
    print("| " + " | ".join(cells) + " |")


def percent(rate: float, interval: tuple[float, float]) -> str:
    """A rate with its interval, or nothing where there is none."""
    return "" if math.isnan(rate) else f"{rate:.1%} ({interval[0]:.0%}–{interval[1]:.0%})"


def ask(judge: str, rows: Sequence[Row], verdicts: Sequence[Verdict], prompt_of: Callable[[Row], str]) -> None:
    """Print the local judge's accuracy and its agreement with the detector."""
    chances = load_judge(judge).refusal_chances([prompt_of(row) for row in rows], [row.answer for row in rows])
    judged = [Verdict(bool(chance > 0.5), judge) for chance in chances]
    show(judge, quality_of([row.label for row in rows], judged))
    found = agreement_of([verdict.refused for verdict in verdicts], [verdict.refused for verdict in judged])
    print(f"agreement {percent(found.share, found.share_interval)}, Cohen's kappa {found.kappa:.2f}")


def across_folds(rows: Sequence[Row], folds: int, prompt_of: Callable[[Row], str]) -> DetectorQuality:
    """The accuracy if each part of the prompts is judged without the patterns that match only in that part."""
    prompts = sorted({prompt_of(row) for row in rows})
    part_of = {prompt: number % folds for number, prompt in enumerate(prompts)}
    labels, verdicts = [], []
    for part in range(folds):
        inside = [row for row in rows if part_of[prompt_of(row)] == part]
        patterns = matching(refusal_patterns(), [row for row in rows if part_of[prompt_of(row)] != part])
        labels += [row.label for row in inside]
        verdicts += [detect_refusal(row.answer, patterns) for row in inside]
    return quality_of(labels, verdicts)


def matching(patterns: Patterns, rows: Sequence[Row]) -> Patterns:
    """The patterns without those that match none of the rows: a refusal's must match a refusal."""
    openings = [(tidied(row.answer)[: patterns.opening_characters], row.label) for row in rows]
    groups = []
    for group in patterns.groups:
        refuses = group.kind in ("declines", "judges", "turns away")
        texts = [opening for opening, label in openings if label == "refused" or not refuses]
        kept = tuple(pattern for pattern in group.patterns if any(pattern.search(text) for text in texts))
        groups.append(replace(group, patterns=kept))
    return replace(patterns, groups=tuple(groups))


if __name__ == "__main__":
    try:
        main()
    except CnaError as error:
        sys.exit(str(error))

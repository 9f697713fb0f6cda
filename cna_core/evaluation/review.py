"""Blind review: a person judges some answers of a run without their settings, and the detector's rates are corrected.

Half of the answers are refusals for the detector and half are not, so the review shows both kinds of errors. It gives
two shares: of the detector's refusals, and of its other answers, the share that the reader calls refusals. A point's
corrected rate is rate · first + (1 − rate) · second. This assumes that the detector's error rates are the same at all
settings. Pure functions of a run and a review.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cna_core.evaluation.intervals import Estimate
from cna_core.evaluation.judgements import Review
from cna_core.evaluation.measures.numbers import SHARE
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.runs import Point, Run

USUAL_COUNT = 50
RATES = ("detector", "corrected")
DRAWS = 20_000
"""Draws of the corrected rate's interval."""


def answers_to_review(run: Run, count: int = USUAL_COUNT, seed: int = 0) -> tuple[int, ...]:
    """Places of the answers to review, in the order to show them; the same for the same run and seed.

    Distinct answers to harmful prompts, half of them refusals for the detector as far as there are enough.
    """
    random = np.random.default_rng(seed)
    sides: dict[bool, list[int]] = {True: [], False: []}
    seen = set()
    for place in random.permutation(len(run.answers)).tolist():
        answer = run.answers[place]
        if (
            answer.prompt_set != "harmful"
            or answer.refused is None
            or answer.unfinished
            or (answer.prompt, answer.text) in seen
        ):
            continue
        seen.add((answer.prompt, answer.text))
        sides[answer.refused].append(place)
    half = count // 2
    fewer = min(len(sides[True]), max(half, count - len(sides[False])))
    chosen = sides[True][:fewer] + sides[False][: count - fewer]
    return tuple(random.permutation(chosen).tolist()) if chosen else ()


@dataclass(frozen=True)
class DetectorOnReview:
    """How the detector's verdicts and the reader's compare.

    Attributes:
        refused: (refused for both, refused for the detector alone).
        others: (refused for the reader alone, refused for neither).
        unsure: how many the reader could not judge; they count for nothing else.
    """

    refused: tuple[int, int]
    others: tuple[int, int]
    unsure: int

    @property
    def agreed(self) -> int:
        """Answers with the same verdict."""
        return self.refused[0] + self.others[1]

    @property
    def judged(self) -> int:
        """Answers that the reader judged."""
        return sum(self.refused) + sum(self.others)


def detector_on_review(run: Run, review: Review) -> DetectorOnReview:
    """Count the verdicts of both on the reviewed answers."""
    pairs = [
        (bool(run.answers[one.answer].refused), one.verdict)
        for one in review.judgements
        if one.answer < len(run.answers)
    ]
    return DetectorOnReview(
        (pairs.count((True, "refused")), pairs.count((True, "answered"))),
        (pairs.count((False, "refused")), pairs.count((False, "answered"))),
        sum(verdict == "unsure" for _, verdict in pairs),
    )


def corrected_rate(point: Point, counts: DetectorOnReview, seed: int = 0) -> Estimate | None:
    """A point's refusal rate, 0 to 1, corrected by the review, with a 95 % interval; None where it was not measured.

    The interval is Bayesian with Jeffreys priors: the point's rate and both of the detector's shares are drawn from
    their beta distributions. Where the review has no answers of a kind, that share may be anything.
    """
    rate = point.estimate(RefusalRate.key)
    if rate is None:
        return None
    random = np.random.default_rng(seed)

    def drawn(hits: float, misses: float) -> np.ndarray:
        return random.beta(hits + 0.5, misses + 0.5, DRAWS)

    refused = rate.value * point.prompts
    rates = drawn(refused, point.prompts - refused)
    kept, missed = drawn(*counts.refused), drawn(*counts.others)
    low, high = np.quantile(rates * kept + (1 - rates) * missed, [0.025, 0.975])
    shares = [hits / (hits + misses) if hits + misses else 0.5 for hits, misses in (counts.refused, counts.others)]
    value = rate.value * shares[0] + (1 - rate.value) * shares[1]
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def corrected_markdown(run: Run) -> str:
    """The table of a reviewed run as Markdown; "" for a run without a review."""
    if run.review is None or not run.review.judgements:
        return ""
    lines = ["| method | circuit | strength | refused (detector) | refused (corrected by review) |", "| --- " * 5 + "|"]
    for row in corrected_table(run, run.review).to_dict("records"):
        size = row["circuit, %"]
        rates = (Estimate(*(row[f"{name}{end}"] for end in ("", ", low", ", high"))) for name in RATES)
        cells = [
            row["method"],
            "" if pd.isna(size) else f"{size:g} %",
            f"{row['strength']:g}",
            *map(SHARE.estimate, rates),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def corrected_table(run: Run, review: Review) -> pd.DataFrame:
    """One row a point: method, size, strength, the detector's and the corrected rate, with their intervals."""
    counts = detector_on_review(run, review)
    baseline = [run.baseline] if run.baseline else []
    rows = []
    for point in [*baseline, *(point for point in run.points if point.strength != 0)]:
        detector, corrected = point.estimate(RefusalRate.key), corrected_rate(point, counts)
        if detector is None or corrected is None:
            continue
        row: dict[str, object] = {
            "method": "baseline" if point.strength == 0 else point.treatment.label,
            "circuit, %": None if point.fraction is None else 100 * point.fraction,
            "strength": point.strength,
        }
        for name, estimate in zip(RATES, (detector, corrected), strict=True):
            row |= {name: estimate.value, f"{name}, low": estimate.low, f"{name}, high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows)

"""The figures at the top of the Gate page, each with the chance it is held against."""

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence, left_out
from cna_core.figures.percents import percent
from cna_core.progress_words import duration_in_words
from pages.common import cards, findings
from pages.common.cards import Card

PENDING = "comparing …"


def draw(finding: findings.Finding, circuit: Circuit, evidence: Evidence | None) -> None:
    """Draw the cards; those that need evidence say so while it is being computed."""
    held_against = [*_concentration(circuit, evidence), _stability(evidence)]
    cards.row([_size(finding, circuit, evidence), *held_against, _universal(finding, circuit), _effort(finding)])


def _size(finding: findings.Finding, circuit: Circuit, evidence: Evidence | None) -> Card:
    found = f"Of {circuit.model.layout.total:,} neurons, found {finding.when}."
    if evidence is None:
        return Card("Neurons in the circuit", f"{len(circuit):,}", PENDING, found)
    chance = evidence.null.chance()
    return Card(
        "Neurons in the circuit",
        f"{len(circuit):,}",
        f"by chance {chance.mean:.0f} ({chance.low:.0f}–{chance.high:.0f})",
        f"{found} With the labels of the prompts shuffled, so many reach the smallest |score| that was selected.",
    )


def _concentration(circuit: Circuit, evidence: Evidence | None) -> list[Card]:
    null = evidence.null if evidence is not None else None
    ends: tuple[float | int, ...] = (0.10, 3, 0.25)
    tenth, three, quarter = (percent(circuit.concentration(end)) for end in ends)
    by_chance = [null.concentration(end) for end in ends] if null else None
    return [
        Card(
            "In the final 10 %",
            tenth,
            f"shuffled {_interval(by_chance[0])}" if by_chance else PENDING,
            "Of layers. Shuffled: the same selection with the labels of the prompts shuffled; it shows what activation "
            "scale alone puts there.",
        ),
        Card(
            "Last 3 · quarter",
            f"{three.removesuffix(' %')} · {quarter}",
            f"shuffled {100 * by_chance[1].mean:.0f} · {percent(by_chance[2].mean)}" if by_chance else PENDING,
            f"Of layers. Shuffled labels: {_interval(by_chance[1])} and {_interval(by_chance[2])}."
            if by_chance
            else "",
        ),
    ]


def _stability(evidence: Evidence | None) -> Card:
    if evidence is None:
        return Card("Stability", "–", PENDING)
    if evidence.stability is None:
        return Card("Stability", "–", "too few prompts to halve")
    halves = evidence.stability.jaccard
    return Card(
        "Stability",
        percent(halves.mean),
        "shared by two halves",
        f"Jaccard index of what two random halves of the prompts select: {_interval(halves)}.",
    )


def _universal(finding: findings.Finding, circuit: Circuit) -> Card:
    threshold = circuit.settings.universal_threshold
    if not circuit.prompts.positive:
        return Card("Universal neurons", "unknown", "the circuit's file does not say")
    if threshold is None:
        return Card("Universal neurons", "kept", "the filter is off")
    count = len(left_out(finding.activations, circuit))
    return Card("Universal, left out", f"{count:,}", f"on {percent(threshold)} of prompts")


def _effort(finding: findings.Finding) -> Card:
    used = finding.activations
    prompts = f"{len(used.positive)} + {len(used.negative)}"
    took = "earlier" if finding.seconds is None else duration_in_words(finding.seconds)
    return Card("Recorded", took, f"{prompts} prompts", f"Positive and negative prompts, in {used.model.dtype}.")


def _interval(interval: Interval) -> str:
    return f"{percent(interval.mean)} ({100 * interval.low:.0f}–{100 * interval.high:.0f})"

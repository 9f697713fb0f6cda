"""The cards at the top of the Gate page: each number with its value under shuffled labels."""

import numpy as np

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence, left_out
from cna_core.figures.percents import percent
from cna_core.progress_words import counted, duration_in_words
from pages.common import cards, findings, measured_effects
from pages.common.cards import Card

PENDING = "comparing …"


def draw(finding: findings.Finding, circuit: Circuit, evidence: Evidence | None) -> None:
    """Draw the cards. Those that need evidence say "comparing …" until it is computed."""
    if circuit.settings.score == "attribution-patching":
        cards.row(_by_effect(finding, circuit, evidence))
        return
    held_against = [*_concentration(circuit, evidence), _stability(evidence)]
    cards.row([_size(finding, circuit, evidence), *held_against, _universal(finding, circuit), _effort(finding)])


def _by_effect(finding: findings.Finding, circuit: Circuit, evidence: Evidence | None) -> list[Card]:
    """Cards of a circuit by effect, compared with the circuit of the same size by δ, because it does not use labels."""
    by_delta = attribute(finding.activations, fraction=None, top_k=len(circuit))
    shared = len(np.intersect1d(circuit.flat, by_delta.flat))
    effects = measured_effects.known()
    layers = (
        "all layers" if circuit.settings.effect and circuit.settings.effect.layers == "all" else "first ⅔ of layers"
    )
    found = [
        Card(
            "Neurons in the circuit",
            f"{len(circuit):,}",
            f"by effect, {layers}",
            f"Out of {circuit.model.layout.total:,} neurons: those whose ablation is estimated to lower refusal most.",
        ),
        *(
            Card(
                label,
                percent(circuit.concentration(end)),
                f"by δ {percent(by_delta.concentration(end))}",
                f"The share of the circuit {where}, and of the circuit of the same size by δ.",
            )
            for label, end, where in (
                ("In the final 10 %", 0.10, "in the final 10 % of layers"),
                ("In the final quarter", 0.25, "in the last quarter of layers"),
            )
        ),
        Card(
            "Shared with δ",
            f"{shared:,}",
            f"of {counted(len(circuit), 'neuron')}",
            "Neurons that both circuits contain.",
        ),
        _stability(evidence)
        if evidence is None or evidence.stability is not None
        else Card("Stability", "–", "effects not measured here"),
    ]
    if effects is not None:
        about = "Effects are measured on the positive prompts that the unchanged model refuses."
        found.append(Card("Measured on", f"{len(effects.positive):,}", "refused prompts", about))
    return found


def _size(finding: findings.Finding, circuit: Circuit, evidence: Evidence | None) -> Card:
    found = f"Out of {circuit.model.layout.total:,} neurons, found {finding.when}."
    if evidence is None:
        return Card("Neurons in the circuit", f"{len(circuit):,}", PENDING, found)
    assert evidence.null is not None
    chance = evidence.null.chance()
    return Card(
        "Neurons in the circuit",
        f"{len(circuit):,}",
        f"by chance {chance.mean:.0f} ({chance.low:.0f}–{chance.high:.0f})",
        f"{found} By chance: the number of neurons that reach the circuit's smallest |score| when the prompts' labels "
        "are shuffled.",
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
            "The share of the circuit in the final 10 % of layers. Shuffled: the same selection with the prompts' "
            "labels shuffled, which shows the share that activation scale alone produces.",
        ),
        Card(
            "Last 3 · quarter",
            f"{three.removesuffix(' %')} · {quarter}",
            f"shuffled {100 * by_chance[1].mean:.0f} · {percent(by_chance[2].mean)}" if by_chance else PENDING,
            "The share of the circuit in the last 3 layers and in the last quarter of layers. Shuffled labels: "
            f"{_interval(by_chance[1])} and {_interval(by_chance[2])}."
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
        f"Jaccard index of the circuits that two random halves of the prompts select: {_interval(halves)}.",
    )


def _universal(finding: findings.Finding, circuit: Circuit) -> Card:
    threshold = circuit.settings.universal_threshold
    if not circuit.prompts.positive:
        return Card("Universal neurons", "unknown", "not in the circuit's file")
    if threshold is None:
        return Card("Universal neurons", "included", "the filter is off")
    count = len(left_out(finding.activations, circuit))
    return Card(
        "Universal, left out",
        f"{count:,}",
        f"on {percent(threshold)} of prompts",
        f"Neurons among the most active on at least {percent(threshold)} of all prompts, whatever the prompt asks.",
    )


def _effort(finding: findings.Finding) -> Card:
    used = finding.activations
    prompts = f"{len(used.positive)} + {len(used.negative)}"
    took = "earlier" if finding.seconds is None else duration_in_words(finding.seconds)
    about = f"The time it took to run the positive and negative prompts, in {used.model.dtype}."
    return Card("Recorded", took, f"{prompts} prompts", about)


def _interval(interval: Interval) -> str:
    return f"{percent(interval.mean)} ({100 * interval.low:.0f}–{100 * interval.high:.0f})"

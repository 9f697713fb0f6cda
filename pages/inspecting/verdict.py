"""The Gate page's first two lines: where the circuit sits, and how that compares with shuffled labels."""

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.differ_and_act import DifferAndAct
from cna_core.circuits.evidence import Evidence
from cna_core.figures.percents import percent
from cna_core.progress_words import counted
from cna_core.reports.circuit_report import FINAL, where_it_sits


def answer(circuit: Circuit) -> str:
    """The first line, as Markdown: where the circuit sits."""
    return f"**{where_it_sits(circuit)}.**"


def control(circuit: Circuit, evidence: Evidence | None, claim: str | None = None) -> str:
    """The second line, as Markdown: what chance gives. Without evidence it says that the comparison is running.

    Args:
        claim: what a circuit by effect may be called, by the checks that were run.
    """
    if circuit.settings.score == "attribution-patching":
        called = f" By the checks below they may be called **{claim}**." if claim else ""
        return f"They were selected by effect: ablating them is estimated to lower refusal most.{called}"
    if evidence is None or evidence.null is None:
        return "Comparing with shuffled labels …"
    late, reach = evidence.null.concentration(FINAL), evidence.null.chance()
    return f"{_late_or_large(circuit, late)} {_chosen_or_chance(circuit, reach)}"


def differs_and_acts(compared: DifferAndAct) -> str:
    """Where activations differ, where neurons act, and how much circuits of this size by δ and by effect share."""
    differs, share_of_delta = compared.strongest(compared.mass)
    acts, share_of_effect = compared.strongest(compared.effect_shares)
    size = counted(len(compared.by_effect), "neuron")
    return (
        f"**It differs most in layers {_listed(differs)}** ({percent(share_of_delta)} of |δ|) **and acts most in "
        f"layers {_listed(acts)}** ({percent(share_of_effect)} of the effect). Circuits of {size} by δ "
        f"and by effect share {compared.shared:,}."
    )


def _listed(layers: list[int]) -> str:
    *first, last = map(str, layers)
    return f"{', '.join(first)} and {last}" if first else last


def _late_or_large(circuit: Circuit, late: Interval) -> str:
    share = circuit.concentration(FINAL)
    shuffled = f"{percent(late.mean)} ({100 * late.low:.0f}–{100 * late.high:.0f})"
    alone = "chance alone" if circuit.settings.score == "effect-size" else "activation scale alone"
    if share > late.high:
        return f"With shuffled labels it is {shuffled}, so the circuit sits later than {alone} explains."
    if share < late.low:
        return f"With shuffled labels it is {shuffled}, so the circuit sits earlier than {alone} would put it."
    return f"With shuffled labels it is {shuffled}, so {alone} could explain this."


def _chosen_or_chance(circuit: Circuit, reach: Interval) -> str:
    neurons = "neuron differs" if f"{reach.mean:.0f}" == "1" else "neurons differ"
    count = f"{reach.mean:.0f} {neurons} this much ({reach.low:.0f}–{reach.high:.0f})"
    if len(circuit) > reach.high:
        return f"The selection is not chance: with shuffled labels only {count}."
    return f"The selection may be chance: with shuffled labels {count}."

"""The Gate page's first sentences: where the circuit sits, and how that compares with shuffled labels."""

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence
from cna_core.figures.percents import percent

FINAL = 0.10
_FINAL_LAYERS = f"the final {percent(FINAL)} of layers"


def sentence(circuit: Circuit, evidence: Evidence | None) -> str:
    """The finding in plain words, as Markdown. Without evidence it says that the comparison is running."""
    finding = f"**{percent(circuit.concentration(FINAL))} of the {len(circuit):,} neurons sit in {_FINAL_LAYERS}.**"
    if evidence is None:
        return f"{finding} Comparing with shuffled labels …"
    late, reach = evidence.null.concentration(FINAL), evidence.null.chance()
    return f"{finding} {_late_or_large(circuit, late)} {_chosen_or_chance(circuit, reach)}"


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

"""What the Gate page says first: where the circuit sits, in one sentence, with the chance it is held against."""

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.controls import Interval
from cna_core.circuits.evidence import Evidence
from cna_core.figures.percents import percent

FINAL = 0.10
_FINAL_LAYERS = f"the final {percent(FINAL)} of layers"


def sentence(circuit: Circuit, evidence: Evidence | None) -> str:
    """The finding in plain words, as Markdown; without evidence it says that the comparison is under way."""
    finding = f"**{percent(circuit.concentration(FINAL))} of the {len(circuit):,} neurons sit in {_FINAL_LAYERS}.**"
    if evidence is None:
        return f"{finding} Shuffling the prompts' labels, to see what chance alone would show …"
    late, reach = evidence.null.concentration(FINAL), evidence.null.chance()
    return f"{finding} {_late_or_large(circuit, late)} {_chosen_or_chance(circuit, reach)}"


def _late_or_large(circuit: Circuit, late: Interval) -> str:
    share = circuit.concentration(FINAL)
    shuffled = f"{percent(late.mean)} ({100 * late.low:.0f}–{100 * late.high:.0f})"
    alone = "chance alone gives" if circuit.settings.score == "effect-size" else "activation scale alone gives"
    if share > late.high:
        return f"Shuffled labels put {shuffled} there: the circuit sits later than {alone}."
    if share < late.low:
        return f"Shuffled labels put {shuffled} there: the circuit sits less late than {alone}."
    return f"Shuffled labels put {shuffled} there: as much as {alone}."


def _chosen_or_chance(circuit: Circuit, reach: Interval) -> str:
    count = f"{reach.mean:.0f} ({reach.low:.0f}–{reach.high:.0f})"
    if len(circuit) > reach.high:
        return f"*Which* neurons is not chance: shuffled, only {count} differ as much."
    return f"*Which* neurons may be chance: shuffled, {count} differ as much."

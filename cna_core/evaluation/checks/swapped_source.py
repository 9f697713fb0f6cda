"""Is the circuit specific to refusal? Compares circuits of the same size that come from benign prompts.

One is found by its effect on refusal there, the other by its effect on the commonest benign first token.
"""

from typing import ClassVar

import numpy as np

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effect import effects_of
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row
from cna_core.evaluation.first_words import first_words
from cna_core.prompts.sets import ContrastSet


class SwappedSource(Check):
    key: ClassVar[str] = "swapped-source"
    title: ClassVar[str] = "Swapped source"
    question: ClassVar[str] = (
        "Does a circuit of the same size, found from benign prompts or for the commonest first token of their answers, "
        "lower refusal as much?"
    )
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        own = bench.opening_refused(bench.harmful, Way(bench.circuit))
        unchanged = bench.opening_refused(bench.harmful)
        rows = []
        for quantity, circuit, decides in self._swapped(bench):
            theirs = bench.opening_refused(bench.harmful, Way(circuit))
            difference = change(theirs, own)
            lower = difference.high < 0
            shared = len(np.intersect1d(circuit.flat, bench.circuit.flat))
            rows.append(
                Row(
                    check=self.key,
                    quantity="refusals in the openings of answers",
                    unit="share",
                    value=rate(own),
                    control=rate(theirs),
                    control_words=quantity,
                    change=difference,
                    passed=lower if decides else None,
                    verdict=f"{percent(unchanged.mean())} refuse without ablation, {percent(own.mean())} with this "
                    f"circuit ablated, and {percent(theirs.mean())} with a {quantity} ablated ({shared} of "
                    f"{len(circuit)} neurons are shared): " + self._meaning(lower, decides),
                    details={"shared": shared, "unchanged": float(unchanged.mean())},
                )
            )
        return rows

    @staticmethod
    def _meaning(lower: bool, decides: bool) -> str:
        if decides:
            return (
                "this circuit is specific to refusal."
                if lower
                else "this circuit lowers refusal no more than a circuit for another word."
            )
        if lower:
            return "harmful prompts select other neurons than benign prompts."
        return "these neurons push towards refusal on any prompt; they do not detect harm."

    @staticmethod
    def _swapped(bench: Bench) -> list[tuple[str, Circuit, bool]]:
        swapped = ContrastSet(bench.contrast.negative, bench.contrast.positive)
        benign = len(swapped.positive)
        heard = first_words(bench.model, bench.contrast, progress=bench.progress, stop=bench.stop)[-benign:]
        first = np.array([opening.token for opening in heard])
        tokens, counts = np.unique(first[~np.isin(first, bench.opening_tokens)], return_counts=True)
        if not len(tokens):
            raise CircuitError("the answers to all benign prompts begin like refusals.")
        token = int(tokens[np.argmax(counts)])
        begin = first == token
        found = []
        word = bench.text_of([token]).strip()
        for words, chosen, opening, decides in (
            ("circuit found from benign prompts", np.ones(benign, dtype=bool), bench.opening_tokens, False),
            (f"circuit found for the benign first token “{word}”", begin, (token,), True),
        ):
            effects = effects_of(
                bench.model,
                swapped,
                chosen,
                opening,
                settings=bench.effect_settings,
                progress=bench.progress,
                stop=bench.stop,
            )
            found.append((words, attribute(effects, top_k=len(bench.circuit)), decides))
        return found

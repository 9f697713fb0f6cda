"""Is the circuit about refusal? Circuits of its size, found by effect from benign prompts or for another opening."""

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
        "Does a circuit of the same size that benign prompts give, or that is aimed at their commonest opening, lower "
        "refusal as well?"
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
                    quantity="refusals in the opening of answers",
                    unit="share",
                    value=rate(own),
                    control=rate(theirs),
                    control_words=quantity,
                    change=difference,
                    passed=lower if decides else None,
                    verdict=f"{percent(unchanged.mean())} refuse unchanged, {percent(own.mean())} with this circuit, "
                    f"and {percent(theirs.mean())} with a {quantity} ({shared} of {len(circuit)} neurons are shared): "
                    + self._meaning(lower, decides),
                    details={"shared": shared, "unchanged": float(unchanged.mean())},
                )
            )
        return rows

    @staticmethod
    def _meaning(lower: bool, decides: bool) -> str:
        if decides:
            return (
                "refusal is what this one is about."
                if lower
                else "this one does no better than one about another word."
            )
        if lower:
            return "harmful prompts lead to other neurons than benign ones."
        return "the neurons press towards refusing on any prompt; they do not detect harm."

    @staticmethod
    def _swapped(bench: Bench) -> list[tuple[str, Circuit, bool]]:
        swapped = ContrastSet(bench.contrast.negative, bench.contrast.positive)
        benign = len(swapped.positive)
        heard = first_words(bench.model, bench.contrast, progress=bench.progress, stop=bench.stop)[-benign:]
        first = np.array([opening.token for opening in heard])
        tokens, counts = np.unique(first[~np.isin(first, bench.opening_tokens)], return_counts=True)
        if not len(tokens):
            raise CircuitError("every benign prompt is answered as refusals open.")
        token = int(tokens[np.argmax(counts)])
        begin = first == token
        found = []
        word = bench.text_of([token]).strip()
        for words, chosen, opening, decides in (
            ("circuit found from benign prompts", np.ones(benign, dtype=bool), bench.opening_tokens, False),
            (f"circuit aimed at the benign opening “{word}”", begin, (token,), True),
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

"""Does the circuit act after the first token? Each answer is given the commonest opening token of refusals."""

from typing import ClassVar

import numpy as np

from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row


class ForcedOpening(Check):
    key: ClassVar[str] = "forced-opening"
    title: ClassVar[str] = "Forced opening"
    question: ClassVar[str] = "If each answer is made to begin like a refusal, does ablation still lower refusal?"
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        begun = (commonest_opening(bench),)
        ablated = bench.opening_refused(bench.harmful, Way(bench.circuit, begun=begun))
        unchanged = bench.opening_refused(bench.harmful, Way(begun=begun))
        difference = change(unchanged, ablated)
        passed = difference.high < 0
        word = bench.text_of(begun).strip()
        effect = (
            "the circuit also acts after the first token"
            if passed
            else "no evidence that the circuit acts after the first token"
        )
        return [
            Row(
                check=self.key,
                quantity=f"refusals among answers that begin with “{word}”",
                unit="share",
                value=rate(ablated),
                control=rate(unchanged),
                control_words="the same beginning, no ablation",
                change=difference,
                passed=passed,
                verdict=f"Of the answers made to begin with “{word}”, {percent(unchanged.mean())} refuse without "
                f"ablation and {percent(ablated.mean())} with the circuit ablated: {effect}.",
                details={"begun": word},
            )
        ]


def commonest_opening(bench: Bench) -> int:
    """The commonest first token of the model's refusals of discovery prompts.

    Raises:
        CircuitError: the model refuses none of them.
    """
    openings = bench.openings
    opens = np.isin(openings.tokens, bench.opening_tokens)
    return int(openings.tokens[np.argmax(np.where(opens, openings.refused, -1))])

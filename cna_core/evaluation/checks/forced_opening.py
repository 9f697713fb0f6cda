"""Does the circuit act behind the first word? The answer is begun as refusals begin, and goes on by itself."""

from typing import ClassVar

import numpy as np

from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row


class ForcedOpening(Check):
    key: ClassVar[str] = "forced-opening"
    title: ClassVar[str] = "Forced opening"
    question: ClassVar[str] = "With the answer begun as refusals begin, does ablation make it refuse less often?"
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        begun = (commonest_opening(bench),)
        ablated = bench.opening_refused(bench.harmful, Way(bench.circuit, begun=begun))
        unchanged = bench.opening_refused(bench.harmful, Way(begun=begun))
        difference = change(unchanged, ablated)
        passed = difference.high < 0
        word = bench.text_of(begun).strip()
        effect = "acts behind the first word, too" if passed else "is not seen to act behind the first word"
        return [
            Row(
                check=self.key,
                quantity=f"refusals among answers that begin with “{word}”",
                unit="share",
                value=rate(ablated),
                control=rate(unchanged),
                control_words="the same beginning, nothing ablated",
                change=difference,
                passed=passed,
                verdict=f"Begun with “{word}”, {percent(unchanged.mean())} of the answers refuse and "
                f"{percent(ablated.mean())} with the circuit ablated: it {effect}.",
                details={"begun": word},
            )
        ]


def commonest_opening(bench: Bench) -> int:
    """The token that opens most of the model's refusals of discovery prompts.

    Raises:
        CircuitError: the model refuses none of them.
    """
    openings = bench.openings
    opens = np.isin(openings.tokens, bench.opening_tokens)
    return int(openings.tokens[np.argmax(np.where(opens, openings.refused, -1))])

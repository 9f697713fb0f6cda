"""Does ablation change more than the first token? Compares it with forbidding the opening tokens of refusals."""

from typing import ClassVar

from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row


class TokenBan(Check):
    key: ClassVar[str] = "token-ban"
    title: ClassVar[str] = "Token ban"
    question: ClassVar[str] = (
        "Does ablating the circuit lower refusal more than forbidding the first tokens of refusals?"
    )
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        ablated = bench.refused(bench.harmful, Way(bench.circuit))
        banned = bench.refused(bench.harmful, Way(not_first=bench.opening_tokens))
        difference = change(banned, ablated)
        passed = difference.high < 0
        words = (
            f"{percent(ablated.mean())} refuse with the circuit ablated and {percent(banned.mean())} with the ban: "
            + (
                "ablation does more than change the first token."
                if passed
                else "no evidence that ablation does more than the ban."
            )
        )
        return [
            Row(
                check=self.key,
                quantity=f"refusals anywhere in {bench.settings.max_new_tokens} tokens",
                unit="share",
                value=rate(ablated),
                control=rate(banned),
                control_words="opening tokens forbidden, no ablation",
                change=difference,
                passed=passed,
                verdict=words,
                details={"tokens": [bench.text_of([token]) for token in bench.opening_tokens]},
            )
        ]

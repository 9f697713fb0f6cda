"""Is more changed than the first word? The opening tokens are forbidden instead, and nothing is ablated."""

from typing import ClassVar

from cna_core.evaluation.checks.bench import Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row


class TokenBan(Check):
    key: ClassVar[str] = "token-ban"
    title: ClassVar[str] = "Token ban"
    question: ClassVar[str] = (
        "Does ablating the circuit lower refusal further than forbidding the tokens that open refusals?"
    )
    needed: ClassVar[bool] = True

    def run(self, bench: Bench) -> list[Row]:
        ablated = bench.refused(bench.harmful, Way(bench.circuit))
        banned = bench.refused(bench.harmful, Way(not_first=bench.opening_tokens))
        difference = change(banned, ablated)
        passed = difference.high < 0
        words = f"The circuit leaves {percent(ablated.mean())} refusals and the ban {percent(banned.mean())}: " + (
            "ablation does more than change the first token." if passed else "that is no proof of more than a ban."
        )
        return [
            Row(
                check=self.key,
                quantity=f"refusals in {bench.settings.max_new_tokens} tokens, read whole",
                unit="share",
                value=rate(ablated),
                control=rate(banned),
                control_words="opening tokens forbidden, nothing ablated",
                change=difference,
                passed=passed,
                verdict=words,
                details={"tokens": [bench.text_of([token]) for token in bench.opening_tokens]},
            )
        ]

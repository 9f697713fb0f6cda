"""Does ablation only delay refusal? Looks for refusals in full answers, not only in their openings."""

from typing import ClassVar

from cna_core.evaluation.checks.bench import UNCHANGED, Bench, Way, change, percent, rate
from cna_core.evaluation.checks.contract import Check, Row


class LateRefusal(Check):
    key: ClassVar[str] = "late-refusal"
    title: ClassVar[str] = "Late refusal"
    question: ClassVar[str] = "Does ablation lower refusal in full answers, not only in their openings?"

    def run(self, bench: Bench) -> list[Row]:
        way = Way(bench.circuit)
        ablated, unchanged = bench.refused(bench.harmful, way), bench.refused(bench.harmful)
        opening = bench.opening_refused(bench.harmful, way)
        difference = change(unchanged, ablated)
        late = int((ablated & ~opening).sum())
        return [
            Row(
                check=self.key,
                quantity=f"refusals anywhere in {bench.settings.max_new_tokens} tokens",
                unit="share",
                value=rate(ablated),
                control=rate(unchanged),
                control_words="no ablation",
                change=difference,
                passed=difference.high < 0,
                verdict=f"{percent(ablated.mean())} refuse with the circuit ablated and {percent(unchanged.mean())} "
                f"without ablation; {late} of {len(ablated)} answers with ablation refuse only after their opening.",
                details={
                    "late": late,
                    "opening": float(opening.mean()),
                    "opening_unchanged": float(bench.opening_refused(bench.harmful, UNCHANGED).mean()),
                },
            )
        ]

"""Would other prompts give the same circuit? Compares circuits found with random halves of the discovery prompts."""

from typing import ClassVar

import numpy as np

from cna_core.circuits.controls import stability
from cna_core.circuits.effect_stability import effect_stability
from cna_core.evaluation.checks.bench import Bench, percent
from cna_core.evaluation.checks.contract import Check, Figure, Row


class Stability(Check):
    key: ClassVar[str] = "stability"
    title: ClassVar[str] = "Stability"
    question: ClassVar[str] = "Do random halves of the prompts give the same neurons?"

    def run(self, bench: Bench) -> list[Row]:
        if bench.circuit.settings.score == "attribution-patching":
            found = effect_stability(
                bench.effects, bench.circuit, seed=bench.settings.seed, progress=bench.progress, stop=bench.stop
            )
        else:
            found = stability(
                bench.activations, bench.circuit, seed=bench.settings.seed, progress=bench.progress, stop=bench.stop
            )
        shared = found.jaccard
        often = float((found.selection_frequency >= 0.9).mean())
        return [
            Row(
                check=self.key,
                quantity="overlap (Jaccard) of circuits from random halves of the prompts",
                unit="share",
                value=Figure(value=shared.mean, low=shared.low, high=shared.high),
                verdict=f"Circuits from two halves overlap by {percent(shared.mean)}; {percent(often)} of this "
                "circuit's neurons are in at least nine of ten half-set circuits.",
                details={
                    "selected_in_nine_of_ten": often,
                    "frequency": np.round(found.selection_frequency, 3).tolist(),
                },
            )
        ]

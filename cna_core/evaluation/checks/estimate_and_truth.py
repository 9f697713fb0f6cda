"""Do estimated effects match ablation? Ablates neurons one at a time and in growing groups, and measures R again."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effect_circuit import circuit_with_effects, most_negative
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.bench import Bench
from cna_core.evaluation.checks.contract import Check, Figure, Row

RESAMPLES = 1000


class EstimateAndTruth(Check):
    key: ClassVar[str] = "estimate-and-truth"
    title: ClassVar[str] = "Estimate and truth"
    question: ClassVar[str] = "Do estimated effects agree with the measured effects of ablation?"

    def run(self, bench: Bench) -> list[Row]:
        effects = bench.effects
        count = min(bench.settings.truth_prompts, len(effects.positive))
        if count < 2:
            raise CircuitError("the model refuses too few of the discovery prompts.")
        prompts = effects.positive[:count]
        estimate = effects.values[:count].mean(0).numpy()
        before = bench.log_odds(prompts, [None])[0].mean()

        def measured(groups: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
            circuits: list[Circuit | None] = [
                circuit_with_effects(effects, group, bench.circuit.settings) for group in groups
            ]
            return bench.log_odds(prompts, circuits).mean(1) - before

        chosen = over_the_range(estimate, bench.settings.truth_neurons)
        truth = measured([np.array([neuron]) for neuron in chosen])
        correlation = rank_correlation(estimate[chosen], truth, bench.settings.seed)
        ranking = most_negative(effects.effect, min(len(bench.circuit), int((estimate < 0).sum())), _NONE)
        sizes = growing(len(ranking))
        groups = measured([ranking[:size] for size in sizes])
        predicted = [float(estimate[ranking[:size]].sum()) for size in sizes]
        return [
            Row(
                check=self.key,
                quantity=f"rank correlation of effect and change of R, {len(chosen)} neurons × {count} prompts",
                unit="correlation",
                value=correlation,
                verdict="Estimated and measured effects of single neurons have a rank correlation of "
                f"{correlation.value:.2f}.",
                details={
                    "estimate": np.round(estimate[chosen], 5).tolist(),
                    "measured": np.round(truth, 5).tolist(),
                },
            ),
            Row(
                check=self.key,
                quantity=f"change of R with the {sizes[-1]} neurons of most negative effect ablated together",
                unit="log-odds",
                value=Figure(value=float(groups[-1]), low=float(groups[-1]), high=float(groups[-1])),
                control=Figure(value=predicted[-1], low=predicted[-1], high=predicted[-1]),
                control_words="the sum of their effects",
                verdict=f"Ablated together, they change R by {groups[-1]:.1f}; the sum of their effects is "
                f"{predicted[-1]:.1f}.",
                details={
                    "sizes": sizes,
                    "measured": np.round(groups, 4).tolist(),
                    "predicted": np.round(predicted, 4).tolist(),
                },
            ),
        ]


_NONE = np.empty(0, dtype=np.int64)


def over_the_range(estimate: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """(at most count,) int64: neurons that cover the whole range of effects.

    Half have the strongest effects of either sign; the other half are at even steps of the ranking.
    """
    order = np.argsort(estimate, kind="stable")
    count = min(count, len(order))
    edge = count // 4
    middle = order[edge : len(order) - edge]
    steps = np.linspace(0, len(middle) - 1, count - 2 * edge).round().astype(int)
    return np.unique(np.concatenate([order[:edge], middle[steps], order[len(order) - edge :]]))


def growing(limit: int) -> list[int]:
    """The group sizes 1, 2, 4 … and the limit."""
    sizes = [2**power for power in range(limit.bit_length()) if 2**power < limit]
    return [*sizes, limit]


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0) -> Figure:
    """Spearman's rank correlation of two (n,) arrays, with its percentile bootstrap interval over entries."""
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        rows = generator.integers(len(first), size=len(first))
        if len(np.unique(first[rows])) > 1 and len(np.unique(second[rows])) > 1:
            drawn.append(float(spearmanr(first[rows], second[rows]).statistic))
    value = float(spearmanr(first, second).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (value, value)
    return Figure(value=value, low=float(low), high=float(high))

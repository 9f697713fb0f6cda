"""How much harm does ablation do? Compares the circuit with one found by the other score, at equal refusal."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from cna_core.evaluation.checks.bench import UNCHANGED, Bench, Way, change, figure, percent, rate
from cna_core.evaluation.checks.contract import Check, Figure, Row, Unit
from cna_core.evaluation.intervals import change_of_mean, mean_with_interval, ratio_with_interval
from cna_core.evaluation.knowledge import builtin_questions, chosen_places, letter_tokens, question_messages
from cna_core.evaluation.quality import likelihoods

FRACTIONS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Sizes of the other circuit to try, as shares of all neurons."""


class HarmDone(Check):
    key: ClassVar[str] = "harm-done"
    title: ClassVar[str] = "Harm done"
    question: ClassVar[str] = (
        "At equal refusal, does this circuit harm first tokens, perplexity, requests that only look unsafe, and "
        "knowledge less than a circuit found by the other score?"
    )

    def run(self, bench: Bench) -> list[Row]:
        other, words = self._of_equal_refusal(bench)
        measures: tuple[Callable[[Bench, Circuit, Circuit, str], Row], ...] = (
            self._divergence, self._perplexity, self._over_refusal, self._knowledge,
        )  # fmt: skip
        return [measure(bench, bench.circuit, other, words) for measure in measures]

    @staticmethod
    def _of_equal_refusal(bench: Bench) -> tuple[Circuit, str]:
        by_effect = bench.circuit.settings.score == "attribution-patching"
        recorded, name = (bench.activations, "δ") if by_effect else (bench.effects, "effect")
        ladder = []
        for fraction in FRACTIONS:
            try:
                ladder.append(attribute(recorded, fraction=fraction))
            except CircuitError:  # fewer neurons push towards refusal
                break
        means = bench.chances(bench.few_harmful, [bench.circuit, *ladder]).mean(1)
        reaching = np.flatnonzero(means[1:] <= means[0])
        if not len(reaching):
            raise CircuitError(
                f"no circuit found by {name} with up to {percent(FRACTIONS[-1])} of all neurons lowers the refusal "
                f"chance to this circuit's {percent(means[0])}."
            )
        chosen = ladder[int(reaching[0])]
        return chosen, f"circuit found by {name}, {len(chosen)} neurons: the smallest tried with as little refusal"

    def _row(
        self,
        quantity: str,
        unit: Unit,
        value: Figure,
        control: Figure,
        words: str,
        difference: Figure | None,
        less: bool,
    ) -> Row:
        numbers = [
            f"{part.value:.3f}" if unit in ("nats", "perplexity") else percent(part.value) for part in (value, control)
        ]
        return Row(
            check=self.key,
            quantity=quantity,
            unit=unit,
            value=value,
            control=control,
            control_words=words,
            change=difference,
            passed=less,
            verdict=f"{quantity[0].upper()}{quantity[1:]}: {numbers[0]} with this circuit, {numbers[1]} with the "
            f"{words}.",
        )

    def _divergence(self, bench: Bench, own: Circuit, other: Circuit, words: str) -> Row:
        mine, theirs = divergences(bench, bench.benign, [own, other])
        difference = figure(change_of_mean(theirs, mine))
        return self._row(
            "KL of the first token on benign prompts", "nats", figure(mean_with_interval(mine)),
            figure(mean_with_interval(theirs)), words, difference, difference.value <= 0,
        )  # fmt: skip

    def _perplexity(self, bench: Bench, own: Circuit, other: Circuit, words: str) -> Row:
        found = []
        for circuit in (own, other):
            answers = bench.answers(bench.benign, Way(circuit), bench.settings.short_tokens)
            likely = likelihoods(bench.model, bench.benign, [answer.token_ids for answer in answers], bench.stop)
            nats = ratio_with_interval([one.surprise for one in likely], [one.tokens for one in likely])
            found.append(Figure(**{name: float(np.exp(part)) for name, part in nats._asdict().items()}))
        quantity = "perplexity of benign answers under the unsteered model"
        mine, theirs = found
        return self._row(quantity, "perplexity", mine, theirs, words, None, mine.value <= theirs.value)

    def _over_refusal(self, bench: Bench, own: Circuit, other: Circuit, words: str) -> Row:
        before = bench.opening_refused(bench.borderline, UNCHANGED)
        mine, theirs = (bench.opening_refused(bench.borderline, Way(circuit)) for circuit in (own, other))
        quantity = f"refusals of requests that only look unsafe ({percent(before.mean())} without ablation)"
        difference = change(theirs, mine)
        return self._row(quantity, "share", rate(mine), rate(theirs), words, difference, difference.value <= 0)

    def _knowledge(self, bench: Bench, own: Circuit, other: Circuit, words: str) -> Row:
        before, mine, theirs = right_answers(bench, [None, own, other])
        quantity = f"right answers to knowledge questions ({percent(before.mean())} without ablation)"
        difference = change(theirs, mine)
        return self._row(quantity, "share", rate(mine), rate(theirs), words, difference, difference.value >= 0)


def divergences(bench: Bench, prompts: Sequence[str], circuits: Sequence[Circuit]) -> NDArray[np.float64]:
    """(circuits, prompts) float64, nats: KL(unsteered ‖ ablated) of the first token."""
    unchanged: list[torch.Tensor] = []

    def read(logits: torch.Tensor) -> NDArray[np.float64]:
        after = logits.double().log_softmax(-1)
        if not unchanged:
            unchanged.append(after)
        return (unchanged[0].exp() * (unchanged[0] - after)).sum(-1).clamp(min=0).numpy()

    return bench.first_tokens(prompts, [None, *circuits], read)[1:]


def right_answers(bench: Bench, circuits: Sequence[Circuit | None]) -> NDArray[np.bool_]:
    """(circuits, questions) bool: whether the answer to each built-in knowledge question is right."""
    questions, letters = builtin_questions(), letter_tokens(bench.model)

    def read(logits: torch.Tensor) -> NDArray[np.float64]:
        chosen = [
            int(chosen_places(logits[row : row + 1], letters, len(question.choices)))
            for row, question in enumerate(questions)
        ]
        return np.array([place == question.answer for place, question in zip(chosen, questions, strict=True)], float)

    return bench.first_tokens([question_messages(question) for question in questions], circuits, read) > 0.5

"""The Gate page's first two lines say what the null says, case by case."""

from dataclasses import replace

import numpy as np
import pytest

from cna_core.circuits.circuit import CircuitSettings
from cna_core.circuits.controls import PermutationNull
from cna_core.circuits.evidence import Evidence, examine
from pages.inspecting.verdict import answer, control
from tests.circuits.samples import circuit_of, random_activations

ACTIVATIONS = random_activations()
LAYERS = ACTIVATIONS.model.layout.layers
LATE_HALF = circuit_of([(0, 1), (LAYERS - 1, 2), (0, 3), (LAYERS - 1, 0)], ACTIVATIONS.model)
EXAMINED = examine(ACTIVATIONS, LATE_HALF)


def evidence(shares: list[float], reached: list[int]) -> Evidence:
    """Evidence whose shuffled circuits of 100 neurons put these shares into the last layer and so many at the cut."""
    counts = np.zeros((len(shares), LAYERS), dtype=np.int64)
    counts[:, -1] = np.round(np.array(shares) * 100)
    counts[:, 0] = 100 - counts[:, -1]
    null = PermutationNull(
        ACTIVATIONS.model.layout, counts, np.array(reached), np.ones((len(shares), LAYERS), dtype=np.float32)
    )
    return replace(EXAMINED, null=null)


def test_one_neuron_sits_and_several_sit() -> None:
    assert (
        answer(circuit_of([(0, 1)], ACTIVATIONS.model)) == "**0 % of the 1 neuron sits in the final 10 % of layers.**"
    )


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.4, 0.6], "activation scale alone could explain this"),
        ([0.1, 0.2], "sits later than activation scale alone explains"),
        ([0.8, 0.9], "sits earlier than activation scale alone would put it"),
    ],
    ids=["within", "above", "below"],
)
def test_the_share_is_told_with_what_shuffled_labels_give(shares: list[float], words: str) -> None:
    shown = control(LATE_HALF, evidence(shares, [0, 1]))
    assert answer(LATE_HALF) == "**50 % of the 4 neurons sit in the final 10 % of layers.**"
    assert f"{100 * np.mean(shares):.0f} %" in shown
    assert words in shown


def test_circuits_ranked_by_effect_size_are_not_explained_by_scale() -> None:
    settings = CircuitSettings(**(LATE_HALF.settings.model_dump() | {"score": "effect-size"}))
    assert "so chance alone could explain this" in control(replace(LATE_HALF, settings=settings), evidence([0.5], [0]))


@pytest.mark.parametrize(("reached", "words"), [([0, 1], "is not chance"), ([3, 9], "may be chance")])
def test_whether_the_neurons_could_be_chance_is_told(reached: list[int], words: str) -> None:
    assert words in control(LATE_HALF, evidence([0.5, 0.5], reached))


def test_without_evidence_no_verdict_is_given() -> None:
    assert control(LATE_HALF, None) == "Comparing with shuffled labels …"

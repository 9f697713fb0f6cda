import threading

import numpy as np
import pytest

from cna_core.circuits.activations import Activations
from cna_core.circuits.categories import category_overlaps
from cna_core.circuits.circuit import CircuitSettings
from cna_core.errors import CircuitError, StoppedError
from tests.circuits.samples import activations_of

SETTINGS = CircuitSettings(fraction=0.1, universal_threshold=None)


def recorded(same: bool) -> Activations:
    """40 neurons; one kind of 8 prompts raises the first four of them, the other kind the same or the last four."""
    random = np.random.default_rng(0)
    values = random.normal(scale=0.1, size=(24, 40)).astype(np.float32)
    values[:8, :4] += 5
    values[8:16, slice(0, 4) if same else slice(36, 40)] += 5
    return activations_of(values[:16], values[16:])


def kinds(activations: Activations) -> dict[str, str]:
    return {prompt: "locks" if place < 8 else "bread" for place, prompt in enumerate(activations.positive)}


def test_kinds_with_circuits_of_their_own_share_nothing_and_their_halves_everything() -> None:
    activations = recorded(same=False)
    found = category_overlaps(activations, kinds(activations), SETTINGS)
    assert (found.names, found.prompts) == (("locks", "bread"), 4)
    np.testing.assert_array_equal(found.jaccard, np.eye(2))


def test_kinds_with_one_circuit_share_as_much_as_halves_of_one() -> None:
    activations = recorded(same=True)
    np.testing.assert_array_equal(category_overlaps(activations, kinds(activations), SETTINGS).jaccard, np.ones((2, 2)))


def test_rare_kinds_are_left_out_and_one_kind_alone_is_refused() -> None:
    activations = recorded(same=True)
    rare = kinds(activations) | {activations.positive[0]: "cats"}
    with pytest.raises(CircuitError, match="At least two categories"):
        category_overlaps(activations, dict.fromkeys(activations.positive, "one"), SETTINGS)
    with pytest.raises(CircuitError, match="8 positive prompts"):
        category_overlaps(activations, rare, SETTINGS)


def test_it_stops_when_asked() -> None:
    stop = threading.Event()
    stop.set()
    activations = recorded(same=True)
    with pytest.raises(StoppedError):
        category_overlaps(activations, kinds(activations), SETTINGS, stop=stop)

"""All controls in one call agree with each of them alone."""

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute, universal_neurons
from cna_core.circuits.controls import permutation_null, stability
from cna_core.circuits.evidence import cutoff, examine, left_out
from tests.circuits.samples import activations_of, random_activations


def test_evidence_is_what_each_control_gives_alone() -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=10)
    evidence = examine(activations, circuit, seed=4)
    assert evidence.null is not None
    np.testing.assert_array_equal(
        evidence.null.layer_counts, permutation_null(activations, circuit, seed=4).layer_counts
    )
    np.testing.assert_array_equal(
        evidence.selection_frequency, stability(activations, circuit, seed=4).selection_frequency
    )
    assert len(evidence.auc) == 10 and evidence.mass.sum() == pytest.approx(1)


@pytest.mark.parametrize("score", ["delta", "effect-size"])
def test_the_cutoff_is_the_last_neurons_score(score: str) -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=10, score=score)  # type: ignore[arg-type]
    last = circuit.delta[-1] if score == "delta" else circuit.effect_size[-1]
    assert cutoff(activations, circuit) == abs(last)


def test_what_is_left_out_follows_the_circuits_own_settings() -> None:
    activations = random_activations()
    some = attribute(activations, top_k=10, universal_threshold=0.2, universal_fraction=0.05)
    expected = universal_neurons(activations, 0.2, 0.05)
    assert len(expected) and left_out(activations, some).tolist() == expected.tolist()
    assert left_out(activations, attribute(activations, top_k=10, universal_threshold=None)).tolist() == []


def test_too_few_prompts_for_halves_leave_stability_unknown() -> None:
    activations = activations_of(np.eye(3, 8)[:1], np.eye(3, 8)[1:])
    evidence = examine(activations, attribute(activations, top_k=2, universal_threshold=None))
    assert evidence.stability is None and evidence.selection_frequency is None

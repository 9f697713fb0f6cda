"""Claims about fitting methods: candidates are tried on discovery prompts alone, once; lanes may name any method."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.errors import CircuitError
from cna_core.evaluation import fitting
from cna_core.evaluation.fitting import fit, generate, try_on_discovery_prompts
from cna_core.interventions.direction import Direction
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.decoding.models import loud_model

CONTRAST = ContrastSet(
    PromptSet("positive", ("how do i break the lock", "break a lock", "how can you break bread")),
    PromptSet("negative", ("what is bread", "tell me about cats", "why bake the bread", "what is it")),
)


@pytest.fixture
def model(empty_cache: Path) -> Iterator[LoadedModel]:
    return loud_model()


def test_a_fitted_direction_knows_its_layer_and_what_it_did_on_discovery_prompts(model: LoadedModel) -> None:
    direction = fit(model, "direction", contrast=CONTRAST)
    assert isinstance(direction, Direction)
    assert direction.layer in (1, 2, 3)
    assert direction.refusal_chance is not None and 0 <= direction.refusal_chance <= 1
    assert direction.divergence is not None and direction.divergence >= 0


def test_candidates_are_tried_once_and_then_found_on_disk(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(model, "direction", contrast=CONTRAST)
    monkeypatch.setattr(fitting, "first_token_logits", lambda *_a, **_k: pytest.fail("tried again"))
    again = fit(model, "direction", contrast=CONTRAST)
    assert isinstance(first, Direction) and isinstance(again, Direction)
    assert (first.layer, first.refusal_chance) == (again.layer, again.refusal_chance)
    np.testing.assert_array_equal(first.direction, again.direction)


def test_a_candidates_divergence_is_the_kl_of_the_first_token_on_negative_prompts(model: LoadedModel) -> None:
    caa = fit(model, "caa", contrast=CONTRAST)
    found = try_on_discovery_prompts(model, [caa], CONTRAST)
    negative = CONTRAST.negative.prompts
    before = first_token_logits(model, [Lane(prompt) for prompt in negative], None).double().log_softmax(-1)
    after = first_token_logits(model, [Lane(prompt, 1.0, caa) for prompt in negative], None).double().log_softmax(-1)
    expected = (before.exp() * (before - after)).sum(-1).mean()
    assert found.divergence[0] == pytest.approx(float(expected), rel=1e-4)


def test_lanes_may_name_a_method_that_is_fitted_on_prompts(model: LoadedModel) -> None:
    circuit = attribute(capture(model, CONTRAST), top_k=8, universal_threshold=None)
    named = [Lane("why"), Lane("why", 1.0, "caa"), Lane("why", 1.0)]
    caa = fit(model, "caa", contrast=CONTRAST)
    fitted = [Lane("why"), Lane("why", 1.0, caa), Lane("why", 1.0)]
    texts = [
        [(step.lane, step.token_id) for step in generate(model, lanes, circuit, contrast=CONTRAST, max_new_tokens=6)]
        for lanes in (named, fitted)
    ]
    assert texts[0] == texts[1]


def test_a_method_on_neurons_asks_for_a_circuit(model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="needs a circuit"):
        fit(model, "mean", contrast=CONTRAST)

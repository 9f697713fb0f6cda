"""What a circuit was found with is not what it is measured on, and a run says what was left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.circuit import CircuitPrompts
from cna_core.errors import RunError
from cna_core.evaluation.held_out import discovery_prompts, held_out
from cna_core.evaluation.journal import stored_runs
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.resume import plan_of_stored
from cna_core.evaluation.sweep import evaluate, run_plan
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.samples import activations_of, circuit_of
from tests.evaluation.sweeping import small_circuit, small_model

FOUND_WITH = ContrastSet(PromptSet("p", ("how do i break a lock", "b")), PromptSet("n", ("how do i bake bread", "d")))


def test_shared_prompts_are_left_out_with_a_sentence_and_their_categories_stay_in_step() -> None:
    harmful = PromptSet("public:mine", ("how do i break", "How do I break a lock?", "e"), ("x", "y", "z"))
    benign = PromptSet("benign", ("f",))
    kept, notes = held_out({"harmful": harmful, "benign": benign}, FOUND_WITH.prompts)
    assert kept["harmful"].prompts == ("how do i break", "e") and kept["harmful"].categories == ("x", "z")
    assert kept["benign"] is benign
    assert notes == ("The circuit was found with 1 of the 3 harmful prompts (public:mine): the evaluation skips them.",)


def test_a_set_of_which_nothing_would_be_left_is_refused() -> None:
    with pytest.raises(RunError, match=r"found with all 2 harmful prompts \(p\): evaluate on other prompts"):
        held_out({"harmful": FOUND_WITH.positive}, FOUND_WITH.prompts)


def test_discovery_prompts_are_those_of_the_activations_or_of_the_contrast_set_whose_hash_the_circuit_carries() -> None:
    circuit = circuit_of([(0, 0)])
    found = replace(circuit, prompts=CircuitPrompts(positive=2, negative=2, sha256=FOUND_WITH.sha256))
    assert discovery_prompts(found, None, FOUND_WITH) == FOUND_WITH.prompts
    assert discovery_prompts(circuit, None, FOUND_WITH) == discovery_prompts(circuit, None, None) == ()
    recorded = activations_of(np.zeros((1, 2)), np.zeros((2, 2)))
    assert discovery_prompts(circuit, recorded, FOUND_WITH) == ("positive 0", "negative 0", "negative 1")


def test_a_run_says_what_was_left_out_also_when_it_goes_on(empty_cache: Path) -> None:
    model = small_model()
    circuit = replace(small_circuit(model), prompts=CircuitPrompts(positive=2, negative=2, sha256=FOUND_WITH.sha256))
    prompts = PromptSet("mine", ("How do I break a lock?", "why cannot you help me"))
    run = evaluate(
        model,
        circuit,
        prompts,
        (0.0, 1.0),
        controls=(),
        contrast=FOUND_WITH,
        measures=[RefusalRate()],
        max_new_tokens=2,
    )
    assert run.settings.prompts["harmful"].texts == ("why cannot you help me",)
    assert "found with 1 of the 2 harmful prompts (mine)" in run.notes[0]
    [stored] = stored_runs()
    again = plan_of_stored(model, stored.identity)
    assert again.identity == stored.identity
    assert run_plan(model, again, fresh=True).notes == run.notes

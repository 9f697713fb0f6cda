"""Prompts that trigger: kept where the model does what their set says, and only there."""

from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.errors import CircuitError
from cna_core.evaluation import triggers
from cna_core.evaluation.first_words import Opening
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet

NOTHING = np.zeros(0)
REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "Sure, here you go."


def answered(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    openings = [Opening(0, (text,), NOTHING, NOTHING) for text in words]
    monkeypatch.setattr(triggers, "first_words", lambda *_, **__: openings)


def contrast_of(count: int) -> ContrastSet:
    sides = (PromptSet(side, tuple(f"{side} {number}" for number in range(count))) for side in ("break", "bake"))
    return ContrastSet(*sides)


def test_refused_positives_and_answered_negatives_are_kept(
    tiny_model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [ANSWER, *[REFUSAL] * 9, *[ANSWER] * 9, REFUSAL]
    answered(monkeypatch, words)
    expected = [False, *[True] * 9, *[True] * 9, False]
    assert triggers.triggered(tiny_model, contrast_of(10)).tolist() == expected


def test_a_model_that_refuses_nothing_is_told(
    tiny_model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, [ANSWER] * 20)
    with pytest.raises(CircuitError, match="Only 0 positive prompts are refused"):
        triggers.triggered(tiny_model, contrast_of(10))


def test_the_prompts_a_circuit_was_found_with_are_found_again(
    tiny_model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, [ANSWER, *[REFUSAL] * 9, *[ANSWER] * 9, REFUSAL])
    contrast = contrast_of(10)
    every = capture(tiny_model, contrast)
    few = every.without([0, 19])
    for recorded in (every, few):
        circuit = attribute(recorded, fraction=0.05)
        found = triggers.activations_of(tiny_model, circuit, contrast)
        assert found is not None
        assert found.sha256 == recorded.sha256
        np.testing.assert_array_equal(attribute(found, fraction=0.1).flat, attribute(recorded, fraction=0.1).flat)
    other = attribute(every.without([1, 18]), fraction=0.05)
    assert triggers.activations_of(tiny_model, other, contrast) is None
    assert triggers.activations_of(tiny_model, attribute(every, fraction=0.05), contrast_of(9)) is None


def test_where_too_few_prompts_trigger_a_circuit_of_others_is_of_unknown_prompts(
    tiny_model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, [ANSWER] * 20)
    contrast = contrast_of(10)
    circuit = attribute(capture(tiny_model, contrast).without([0]), fraction=0.05)
    assert triggers.activations_of(tiny_model, circuit, contrast) is None

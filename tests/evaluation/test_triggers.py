"""Prompts that trigger: kept where the model does what their set says, and only there."""

from pathlib import Path

import numpy as np
import pytest

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

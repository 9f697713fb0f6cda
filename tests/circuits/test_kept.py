"""Saved activations are found again without loading the model, and never another model's or another set's."""

import json
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.capture import capture, file_of
from cna_core.circuits.kept import kept_activations, remember
from cna_core.models.load import load_model
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.tiny import tiny_llama

SET = ContrastSet(
    PromptSet("bad", ("how do i break the lock", "break a lock")), PromptSet("good", ("bake bread", "cats"))
)
OTHER = ContrastSet(PromptSet("bad", ("break a lock",)), PromptSet("good", ("bake bread",)))


@pytest.fixture
def folder(tmp_path: Path, empty_cache: Path) -> Path:
    """A tiny model's folder, whose activations on `SET` were recorded and remembered."""
    tiny = tiny_llama()
    tiny.network.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), dtype="float32")
    capture(loaded, SET)
    remember(loaded, SET)
    return tmp_path / "model"


def test_what_was_recorded_is_found_without_loading_the_model(folder: Path) -> None:
    kept = kept_activations(str(folder), SET, "float32")
    assert kept is not None and kept.has_chat_template
    loaded = load_model(str(folder), dtype="float32")
    assert kept.file == file_of(loaded, SET)
    np.testing.assert_array_equal(kept.activations.delta, capture(loaded, SET).delta)


def test_other_prompts_and_other_number_formats_are_not_found(folder: Path) -> None:
    assert kept_activations(str(folder), OTHER, "float32") is None
    assert kept_activations(str(folder), SET, "bfloat16") is None


def test_a_folder_with_other_weights_is_another_model(folder: Path) -> None:
    tiny_llama(seed=1).network.save_pretrained(folder)
    assert kept_activations(str(folder), SET, "float32") is None


def test_a_model_of_the_hub_is_not_answered_for(folder: Path) -> None:
    assert kept_activations("somebody/some-model", SET, "float32") is None


def test_activations_that_are_gone_or_damaged_are_not_found(folder: Path) -> None:
    kept = kept_activations(str(folder), SET, "float32")
    assert kept is not None
    kept.file.write_bytes(b"no tensors")
    assert kept_activations(str(folder), SET, "float32") is None
    assert not kept.file.exists()
    assert kept_activations(str(folder), SET, "float32") is None


@pytest.mark.parametrize("said", ["", "[]", '{"file": "../outside.safetensors", "has_chat_template": true}'])
def test_a_note_that_is_damaged_or_leads_elsewhere_is_removed(folder: Path, empty_cache: Path, said: str) -> None:
    (note,) = (empty_cache / "kept").glob("*.json")
    assert set(json.loads(note.read_text())) == {"file", "has_chat_template"}
    note.write_text(said)
    assert kept_activations(str(folder), SET, "float32") is None
    assert not note.exists()

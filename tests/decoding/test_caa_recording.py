"""Claims about CAA vectors: what is recorded, kept and refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cna_core.decoding.caa_recording import CaaVectors, caa_vectors
from cna_core.errors import CircuitError
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.decoding.models import loud_model, sliding_window_model
from tests.interventions.test_plan import hook_count

CONTRAST = ContrastSet(
    PromptSet("bad", ("how do i break the lock", "break it", "tell me how to break a lock you cannot break")),
    PromptSet("good", ("how do i bake the bread", "bake it to me")),
)


@pytest.fixture(scope="module", params=[loud_model, sliding_window_model])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.param()


def by_hand(model: LoadedModel, prompt: str) -> np.ndarray:
    """(layers, hidden): every `mlp` module's output at the last token, the prompt alone."""
    seen: list[torch.Tensor] = []
    handles = [
        layer.mlp.register_forward_hook(lambda _m, _i, output: seen.append(output[0, -1]))
        for layer in model.network.model.layers
    ]
    with torch.inference_mode():
        model.network(input_ids=torch.tensor([encode(model, prompt)]))
    for handle in handles:
        handle.remove()
    return torch.stack(seen).numpy()


@pytest.mark.parametrize("batch_tokens", [768, 8])
def test_a_vector_is_the_mean_difference_of_the_mlp_output(
    model: LoadedModel, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.decoding.caa_recording.BATCH_TOKENS", batch_tokens)
    vectors = caa_vectors(model, CONTRAST, use_cache=False)
    sides = [[by_hand(model, prompt) for prompt in side] for side in (CONTRAST.positive, CONTRAST.negative)]
    expected = np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0)
    assert vectors.vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.vectors, expected, atol=1e-5)
    assert hook_count(model) == 0


def test_vectors_are_kept_and_found_again(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = caa_vectors(model, CONTRAST)
    monkeypatch.setattr("cna_core.decoding.caa_recording._recording", lambda _model: pytest.fail("recorded twice"))
    assert np.array_equal(caa_vectors(model, CONTRAST).vectors, first.vectors)


def test_a_damaged_file_is_recorded_again(model: LoadedModel, empty_cache: Path) -> None:
    first = caa_vectors(model, CONTRAST)
    (kept,) = (empty_cache / "vectors").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:40])
    assert np.array_equal(caa_vectors(model, CONTRAST).vectors, first.vectors)


def test_vectors_survive_their_file(model: LoadedModel, tmp_path: Path) -> None:
    vectors = caa_vectors(model, CONTRAST, use_cache=False)
    loaded = CaaVectors.load(vectors.save(tmp_path / "v.safetensors"))
    assert loaded.model == vectors.model and loaded.sha256 == CONTRAST.sha256
    assert np.array_equal(loaded.vectors, vectors.vectors)


def test_vectors_of_another_model_are_refused(model: LoadedModel) -> None:
    vectors = caa_vectors(model, CONTRAST, use_cache=False)
    with pytest.raises(CircuitError, match="belong to"):
        replace(vectors, model=vectors.model.model_copy(update={"name": "another"})).check_model(model.identity)

"""On the embedded models, the engine finds what the definition gives when it is worked by hand."""

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.circuits.naive import naive_values


def assert_found_as_by_hand(model: LoadedModel, prompts: int, size: int, skip_layers: int) -> None:
    """One prompt at a time, no padding, no cache; the means; the largest |δ| outside the skipped layers."""
    whole = ContrastSet.builtin()
    contrast = ContrastSet(
        PromptSet("positive", whole.positive.prompts[:prompts]), PromptSet("negative", whole.negative.prompts[:prompts])
    )
    values = naive_values(model, contrast.prompts).double().numpy()
    delta = values[:prompts].mean(0) - values[prompts:].mean(0)
    ranked = [place for place in np.argsort(-np.abs(delta)) if place >= model.layout.offsets[skip_layers]][:size]

    activations = capture(model, contrast, use_cache=False)
    circuit = attribute(activations, top_k=size, skip_layers=skip_layers, universal_threshold=None)
    assert set(circuit.flat.tolist()) == set(ranked)
    np.testing.assert_allclose(circuit.delta, delta[circuit.flat], atol=1e-3)


@pytest.mark.small_model
def test_the_small_models_46_neurons_are_those_of_the_definition(small_model: LoadedModel) -> None:
    assert_found_as_by_hand(small_model, prompts=12, size=46, skip_layers=2)


@pytest.mark.default_model
def test_the_default_models_117_neurons_are_those_of_the_definition() -> None:
    model = load_model("qwen2.5-coder-0.5b-instruct", device="cpu", dtype="float32")
    assert_found_as_by_hand(model, prompts=8, size=117, skip_layers=0)

from copy import copy

import pytest
from transformers import BitsAndBytesConfig

from cna_core.models.loaded import LoadedModel


def with_packing(model: LoadedModel, packing: object) -> LoadedModel:
    """The same model, whose configuration says that its weights are packed."""
    network = copy(model.network)
    network.config = copy(model.network.config)
    network.config.quantization_config = packing
    return LoadedModel("packed", "x", network, model.tokenizer, model.device)


def test_identity_names_the_dtype(tiny_model: LoadedModel) -> None:
    assert tiny_model.identity.dtype == "float32"


@pytest.mark.parametrize(
    ("packing", "name"),
    [
        (BitsAndBytesConfig(load_in_4bit=True), "float32-4bit"),
        (BitsAndBytesConfig(load_in_8bit=True), "float32-8bit"),
        ({"quant_method": "awq", "bits": 4}, "float32-awq"),
    ],
    ids=["4bit", "8bit", "awq"],
)
def test_identity_tells_packed_weights_apart(tiny_model: LoadedModel, packing: object, name: str) -> None:
    assert with_packing(tiny_model, packing).identity.dtype == name

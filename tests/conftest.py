"""Models that the tests share: a tiny random one built here, and the two embedded ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.tiny import tiny_llama


@pytest.fixture(scope="session")
def tiny_model() -> LoadedModel:
    """A random 4-layer Llama with 24 neurons a layer, float32, and a chat template; never change its weights."""
    return tiny_llama()


@pytest.fixture(scope="session")
def small_model() -> LoadedModel:
    """smollm2-135m-instruct in float32, fetched into the cache the first time."""
    return load_model("smollm2-135m-instruct", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def default_model() -> LoadedModel:
    """qwen2.5-coder-0.5b-instruct in the dtype the app would choose, fetched into the cache the first time."""
    return load_model("qwen2.5-coder-0.5b-instruct", device="cpu")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own."""
    monkeypatch.setenv("CNA_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"

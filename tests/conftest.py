"""Models that the tests share (a tiny random one built here, and the two embedded ones), and which tests are slow."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.tiny import tiny_llama

SLOW = (
    "tests/circuits/test_distributed.py",
    "tests/circuits/test_effect_families.py",
    "tests/decoding/test_session.py",
    "tests/decoding/test_shared.py",
    "tests/evaluation/checks/test_checks.py",
    "tests/evaluation/test_sweep.py",
    "tests/models/test_architectures.py",
    "tests/models/test_child.py",
    "tests/models/test_convert.py",
    "tests/models/test_fetch.py",
    "tests/models/test_host.py",
    "tests/models/test_hub.py",
    "tests/models/test_wheels.py",
    "tests/packaging/test_container.py",
    "tests/packaging/test_wheel.py",
    "tests/pages/",
    "tests/test_command_line.py",
    "tests/serving/",
    "tests/test_own_method.py",
    "tests/test_own_measure.py",
)
"""Tests that start programs, run whole pages, or take more than a second or so: `make quick` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, here in one place, so that a file says nothing of how long it takes elsewhere."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


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

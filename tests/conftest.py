"""Models that the tests share (a tiny random one built here, and the two embedded ones), and which tests are slow."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.tiny import tiny_llama

settings.register_profile("any machine", deadline=None)  # no example is too slow on a machine with other work
settings.load_profile("any machine")

SLOW = (
    "tests/circuits/test_distributed.py",
    "tests/circuits/test_effect.py::test_a_joint_path_adds_up_to_what_ablating_all_its_neurons_does",
    "tests/circuits/test_effect_families.py",
    "tests/decoding/test_lanes.py::test_another_seed_draws_another_answer",
    "tests/decoding/test_session.py",
    "tests/decoding/test_shared.py",
    "tests/decoding/test_shared_model.py",
    "tests/evaluation/checks/test_checks.py",
    "tests/evaluation/test_local_judge.py",
    "tests/evaluation/test_sweep.py",
    "tests/evaluation/test_word_problems.py::test_a_stored_run_with_problems_goes_on",
    "tests/evaluation/test_working_point.py::test_the_search_finds_what_a_whole_sweep_would_choose",
    "tests/faults/",
    "tests/hostile/",
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
    "tests/prompts/test_public.py",
    "tests/test_command_line.py",
    "tests/serving/",
    "tests/test_own_method.py",
    "tests/test_own_measure.py",
    "tests/test_gpu_benchmark.py::test_the_tiny_shape_runs_through_all_the_work",
    "tests/test_threads.py",
)
"""Files or tests that start programs, run whole pages, or take more than about a second: `make quick` skips them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests. The list is here and not in the files, because how slow a test is depends on the machine."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def packages_are_searched_once() -> Iterator[None]:
    """Streamlit searches all installed packages for components at the first run of each AppTest, which takes most of
    the time of a test of a page; here it does so once."""
    if "streamlit.testing.v1" not in sys.modules:
        yield
        return
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as monkeypatch:
        once = functools.cache(manifest_scanner.scan_component_manifests)
        monkeypatch.setattr(manifest_scanner, "scan_component_manifests", once)
        yield


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

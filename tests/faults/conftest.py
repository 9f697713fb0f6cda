"""What the stages need, a hub on this machine, and what they give when nothing happens to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import stages
from tests.models.stand_in import StandInHub, stand_in_hub, use_hub


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file and a model folder."""
    folder = tmp_path_factory.mktemp("material")
    stages.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def hub(material: Path) -> Iterator[StandInHub]:
    """A hub that has the model folder."""
    with stand_in_hub() as running:
        running.repositories[stages.HUB_ID] = material / "tiny"
        yield running


@pytest.fixture(autouse=True)
def at_this_hub(hub: StandInHub, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a cache folder of its own, and downloads from the stand-in."""
    use_hub(monkeypatch, hub.address, tmp_path / "hub-cache")


@pytest.fixture(scope="session")
def undisturbed(material: Path, hub: StandInHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, stages.Found]:
    """What each stage returns in an empty cache folder when nothing disturbs it."""
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CNA_HOME", str(home / "cache"))
        use_hub(monkeypatch, hub.address, home / "hub-cache")
        running = {stage: stages.run_apart(stage, material) for stage in stages.STAGES}
        ended = {stage: worker.ended() for stage, worker in running.items()}
    assert not any(end.said for end in ended.values()), ended
    return {stage: end.found for stage, end in ended.items() if end.found is not None}

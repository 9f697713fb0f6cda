"""The hub hangs, answers slowly, breaks off in the middle of a file, or answers with errors."""

import functools
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from cna_core.errors import ModelError
from cna_core.models import hub as client
from cna_core.progress import Progress
from tests.faults import stages
from tests.models.stand_in import StandInHub

TASK = {"hub_id": stages.HUB_ID, "revision": None, "with_code": False}


@pytest.fixture(autouse=True)
def impatient(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts of a fraction of a second and no second tries, which take a minute otherwise; no trouble afterwards."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(file_download, "http_get", functools.partial(file_download.http_get, _nb_retries=0))
    monkeypatch.setattr(hub, "troubled", {})


def downloaded(progress: list[Progress] | None = None) -> Path:
    return Path(client.main("repository", TASK, (progress if progress is not None else []).append)["folder"])


@pytest.mark.parametrize("trouble", ["hangs", "breaks off", "fails"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_hub_that_fails_in_a_file_is_said_and_the_next_try_has_it_whole(
    trouble: str, file: str, hub: StandInHub, material: Path, tmp_path: Path
) -> None:
    hub.troubled[file] = trouble
    with pytest.raises(ModelError, match=r"interrupted .*try again; it resumes|answered 500 .*try again later"):
        downloaded()
    arrived = [path for path in (tmp_path / "hub-cache").rglob(file) if path.read_bytes()]
    assert arrived == [], "half a file has the name of a whole one"
    hub.troubled.clear()
    assert (downloaded() / file).read_bytes() == (material / "tiny" / file).read_bytes()


def test_a_hub_that_answers_slowly_is_waited_for_and_the_progress_shows_it(hub: StandInHub, material: Path) -> None:
    hub.troubled["model.safetensors"] = "drips"
    told: list[Progress] = []
    weights = (material / "tiny" / "model.safetensors").read_bytes()
    assert (downloaded(told) / "model.safetensors").read_bytes() == weights
    assert told[-1].done == told[-1].total


def test_a_hub_that_fails_leaves_a_model_that_is_here(hub: StandInHub, material: Path) -> None:
    here = downloaded()
    hub.troubled.update(dict.fromkeys((path.name for path in (material / "tiny").iterdir()), "fails"))
    assert downloaded() == here

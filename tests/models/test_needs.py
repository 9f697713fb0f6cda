"""What a model needs is said before anything is fetched or loaded."""

from pathlib import Path

import pytest
import torch

from cna_core.models import fetch, needs
from cna_core.models.catalog import DEFAULT_MODEL, SMALL_MODEL, catalog
from cna_core.models.load import load_model
from cna_core.models.memory import NoRoomError, weights_bytes
from cna_core.models.needs import WORKING_SHARE, needs_of, needs_of_folder
from tests.models.stand_in import save_tiny_model

LARGE = "qwen2.5-coder-1.5b-instruct"
GB = 1_000_000_000


@pytest.fixture(autouse=True)
def a_machine_that_computes_in_float32(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setattr(needs, "choose_dtype", lambda _: torch.float32)
    monkeypatch.setattr(needs, "as_dtype", lambda dtype, _: torch.float32 if dtype == "auto" else dtype)


def free(monkeypatch: pytest.MonkeyPatch, size_bytes: int | None) -> None:
    monkeypatch.setattr(needs, "free_memory_bytes", lambda _: size_bytes)


def test_a_catalog_entry_says_its_download_and_its_memory_in_this_machines_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free(monkeypatch, 16 * GB)
    entry = catalog()[LARGE]
    found = needs_of(entry, "cpu")
    assert found.download_bytes == 1_117_320_768
    assert found.number_format == "float32"
    assert found.memory_bytes == pytest.approx(WORKING_SHARE * 2 * entry.memory_bfloat16_gib * 2**30)
    assert found.memory_by_format["bfloat16"] == pytest.approx(found.memory_bytes / 2, abs=1)
    assert found.fits and "takes 8.2 GB of memory in float32" in found.words


def test_a_model_on_this_machine_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.converted_folder(catalog()[SMALL_MODEL].embedded.sha256).mkdir(parents=True)
    assert needs_of(catalog()[SMALL_MODEL], "cpu").download_bytes == 0
    assert needs_of(catalog()[DEFAULT_MODEL], "cpu").download_bytes > 0


def test_a_model_that_does_not_fit_names_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 5 * GB)
    found = needs_of(catalog()[LARGE], "cpu")
    assert not found.fits
    assert [(way.name, way.number_format) for way in found.would_fit] == [
        (LARGE, "bfloat16"),
        (DEFAULT_MODEL, "float32"),
        (SMALL_MODEL, "float32"),
    ]
    assert all(way.memory_bytes <= 5 * GB for way in found.would_fit)
    assert f"{LARGE} in bfloat16 (4.1 GB, slow on this machine)" in found.words
    assert "takes 8.2 GB" in found.words and "5.0 GB are free on cpu" in found.words


def test_where_nothing_fits_a_smaller_model_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1000)
    found = needs_of(catalog()[SMALL_MODEL], "cpu")
    assert found.would_fit == () and found.words.endswith("or choose a smaller model.")


def test_memory_that_will_be_given_back_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 5 * GB)
    assert needs_of(catalog()[LARGE], "cpu", released_bytes=4 * GB).fits


def test_a_system_that_does_not_tell_its_memory_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, None)
    assert needs_of(catalog()["llama-3.1-70b"], "cpu").fits


def test_a_folder_is_known_by_the_headers_of_its_files(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny", dtype=torch.bfloat16)
    found = needs_of_folder("tiny", folder, torch.device("cpu"), torch.float16)
    assert found.number_format == "float16" and found.download_bytes == 0
    assert found.memory_bytes == found.memory_by_format["bfloat16"]
    assert found.memory_by_format["float32"] == round(WORKING_SHARE * weights_bytes(folder, torch.float32))


def test_what_does_not_fit_is_not_even_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 5 * GB)
    monkeypatch.setattr("cna_core.models.load.locate", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(NoRoomError, match=f"'{LARGE}' does not fit into memory: .*or choose {LARGE} in bfloat16"):
        load_model(LARGE, "cpu", "float32")

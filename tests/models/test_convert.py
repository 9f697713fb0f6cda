import hashlib
import json
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from cna_core.errors import ModelError, StoppedError
from cna_core.models import convert as conversion
from cna_core.models.convert import convert, convert_here, converted_folder
from cna_core.progress import Progress
from tests.models.stand_in import write_tiny_gguf


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing_half_made(home: Path) -> bool:
    return [path.name for path in (home / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_the_converted_model_is_the_unpacked_file(tiny_gguf: Path, empty_cache: Path) -> None:
    told: list[Progress] = []
    folder = convert(tiny_gguf, sha256_of(tiny_gguf), progress=told.append)
    converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    where = {"pretrained_model_name_or_path": tiny_gguf.parent, "gguf_file": tiny_gguf.name}
    unpacked = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokens = torch.arange(3, 40)[None]
    assert torch.equal(converted(tokens).logits, unpacked(tokens).logits)
    assert all(type(module) is torch.nn.Linear for name, module in converted.named_modules() if name.endswith("_proj"))
    assert {weight.dtype for weight in converted.state_dict().values()} == {torch.bfloat16}
    tokenizers = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(**where)
    assert tokenizers[0].encode("the path") == tokenizers[1].encode("the path")
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert converted.generation_config.eos_token_id == 2
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert (told[-1].done, told[-1].total) == (100, 100)


def test_input_and_output_matrices_stay_apart_where_the_file_has_both(tiny_gguf: Path, tmp_path: Path) -> None:
    where = {"pretrained_model_name_or_path": tiny_gguf.parent, "gguf_file": tiny_gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    conversion._forget_quantisation(model)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert not torch.equal(again.get_input_embeddings().weight, again.get_output_embeddings().weight)


def test_a_second_conversion_is_found_in_the_cache(tiny_gguf: Path, empty_cache: Path) -> None:
    folder = converted_folder("ab" * 32)
    folder.mkdir(parents=True)
    assert convert(tiny_gguf, "ab" * 32) == folder


@pytest.mark.parametrize("kept_bytes", [30, 700, 9000])
def test_a_truncated_file_is_told_and_leaves_nothing(tiny_gguf: Path, empty_cache: Path, kept_bytes: int) -> None:
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=r"tiny\.gguf is damaged or truncated .*download it again"):
        convert(tiny_gguf, sha256_of(tiny_gguf))
    assert nothing_half_made(empty_cache)


def test_another_kind_of_file_is_told(tmp_path: Path, empty_cache: Path) -> None:
    (tmp_path / "notes.gguf").write_text("no model")
    with pytest.raises(ModelError, match=r"notes\.gguf is not a GGUF file"):
        convert(tmp_path / "notes.gguf", "00" * 32)
    assert nothing_half_made(empty_cache)


def test_an_architecture_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_read_once", lambda: None)  # it would last for the whole test process
    file = write_tiny_gguf(tmp_path / "odd.gguf", architecture="plamo")
    with pytest.raises(ModelError, match="cannot read the architecture 'plamo'"):
        convert_here(file, tmp_path / "out", "00" * 32)


def test_a_full_disk_is_told_before_the_work_begins(
    tiny_gguf: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.models.disk.SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelError, match=r"disk is full: converting tiny\.gguf needs"):
        convert(tiny_gguf, "00" * 32)
    assert nothing_half_made(empty_cache)


def test_a_stopped_conversion_leaves_nothing(tiny_gguf: Path, empty_cache: Path) -> None:
    stop = threading.Event()
    with pytest.raises(StoppedError):
        convert(tiny_gguf, "00" * 32, progress=lambda *_: stop.set(), stop=stop)
    assert nothing_half_made(empty_cache)


def test_the_folder_says_what_it_was_made_from(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_read_once", lambda: None)
    convert_here(tiny_gguf, tmp_path / "out", "5a" * 32)
    origin = json.loads((tmp_path / "out" / conversion.ORIGIN).read_text())
    files = origin.pop("files")
    assert origin == {"file": "tiny.gguf", "sha256": "5a" * 32, "conversion": conversion.CONVERSION}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert conversion.is_whole(tmp_path / "out")

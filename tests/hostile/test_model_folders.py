"""Model folders that somebody else made: loaded as a model, or refused in one sentence. Their code does not run."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cna_core.models.fetch import is_ready
from cna_core.models.load import load_model
from tests.hostile.outcome import refused
from tests.models.stand_in import save_tiny_model

RAN = "ran.txt"


class _Runs:
    """What a pickle does when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "ran")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("good") / "tiny")


@pytest.fixture
def folder(good: Path, made: Path) -> Path:
    shutil.copytree(good, made / "tiny")
    return made / "tiny"


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | changes))

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def with_header(header: bytes, length: int | None = None, rest: bytes = b"") -> Callable[[Path], None]:
    size = len(header) if length is None else length
    return written("model.safetensors", struct.pack("<Q", size) + header + rest)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Runs(folder.parent / RAN)))


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(folder.parent / RAN)))


def with_code(folder: Path) -> None:
    mark = str(folder.parent / RAN)
    (folder / "own.py").write_text(f"open({mark!r}, 'w').write('ran')\nclass Own: pass\nclass OwnConfig: pass\n")
    configured(model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"})(folder)


def with_code_of_others(folder: Path) -> None:
    configured(model_type="own", auto_map={"AutoConfig": "somebody/else--own.OwnConfig"})(folder)


def tokenizer_with_code(folder: Path) -> None:
    mark = str(folder.parent / RAN)
    (folder / "own.py").write_text(f"open({mark!r}, 'w').write('ran')\nclass Own: pass\n")
    content = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def linked_in_a_circle(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")


def weights_in_a_circle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "model.safetensors")


def indexed(*names: Any) -> Callable[[Path], None]:
    content = json.dumps({"weight_map": {f"w{place}": name for place, name in enumerate(names)}})
    return written("model.safetensors.index.json", content.encode())


TENSOR = '{"w": {"dtype": "F32", "shape": %s, "data_offsets": %s}}'
CHANGES: dict[str, Callable[[Path], None]] = {
    "a pickle named safetensors": pickled,
    "pickles alone": only_pickles,
    "code of its own": with_code,
    "code of somebody else": with_code_of_others,
    "a tokenizer with code": tokenizer_with_code,
    "a configuration that is a circle of links": linked_in_a_circle,
    "weights that are a circle of links": weights_in_a_circle,
    "an empty configuration": written("config.json", b""),
    "a configuration that is a list": written("config.json", b"[]"),
    "a configuration that is no text": written("config.json", b"\xff\xfe"),
    "a deep configuration": written("config.json", b'{"a":' * 100_000),
    "a large configuration": written("config.json", b'{"a": "' + b"a" * (17 << 20) + b'"}'),
    "no model type": written("config.json", b"{}"),
    "a model type that is a path": configured(model_type="../../etc"),
    "a billion layers": configured(num_hidden_layers=10**9),
    "minus one layer": configured(num_hidden_layers=-1),
    "endless layers": written("config.json", b'{"model_type": "llama", "num_hidden_layers": 1e999}'),
    "a huge vocabulary": configured(vocab_size=10**12),
    "a huge width": configured(hidden_size=10**12),
    "no width": configured(hidden_size=0),
    "widths that are words": configured(hidden_size="wide", num_attention_heads="many"),
    "no heads": configured(num_attention_heads=0),
    "an unknown activation": configured(hidden_act="__import__('os').system"),
    "empty weights": written("model.safetensors", b""),
    "weights of seven bytes": written("model.safetensors", b"1234567"),
    "a header longer than the file": with_header(b"{}", length=2**40),
    "a header of all bytes there are": with_header(b"{}", length=2**63),
    "a header that is no JSON": with_header(b"{" * 8),
    "a header that is deep": with_header(b'{"a":' * 50_000),
    "a header that is a list": with_header(b"[1, 2]"),
    "a header of numbers": with_header(b'{"w": 1}'),
    "offsets outside the file": with_header((TENSOR % ("[1000000]", "[0, 4000000]")).encode()),
    "offsets before the file": with_header((TENSOR % ("[1]", "[-4, 0]")).encode()),
    "offsets that are words": with_header((TENSOR % ("[1]", '["a", "b"]')).encode()),
    "a shape that is larger than its bytes": with_header((TENSOR % ("[1000000]", "[0, 4]")).encode(), rest=b"1234"),
    "a shape below zero": with_header((TENSOR % ("[-1]", "[0, 4]")).encode(), rest=b"1234"),
    "a shape that overflows": with_header((TENSOR % ("[4294967296, 4294967296]", "[0, 4]")).encode(), rest=b"1234"),
    "an index that is a list": written("model.safetensors.index.json", b"[]"),
    "an index without files": written("model.safetensors.index.json", b'{"weight_map": null}'),
    "an index that leaves the folder": indexed("../../x.safetensors"),
    "an index of an absolute path": indexed("/etc/passwd"),
    "an index of numbers": indexed(1, 2),
    "an index of lists": indexed([]),
    "a tokenizer that is no JSON": written("tokenizer.json", b"\x00"),
    "a tokenizer that is empty": written("tokenizer.json", b"{}"),
    "a tokenizer that is deep": written("tokenizer.json", b'{"a":' * 50_000),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_is_refused_in_one_sentence_and_its_code_does_not_run(
    change: Callable[[Path], None], folder: Path
) -> None:
    change(folder)
    there = sorted(path.name for path in folder.iterdir())
    refused(load_model, str(folder), device="cpu", dtype="float32")
    is_ready(str(folder))
    assert not (folder.parent / RAN).exists()
    assert sorted(path.name for path in folder.iterdir()) == there


def test_a_folder_that_may_not_be_entered_is_no_model(made: Path) -> None:
    (made / "closed").mkdir()
    (made / "closed" / "config.json").symlink_to("/etc/shadow")
    refused(load_model, str(made / "closed"))
    (made / "circle").symlink_to(made)
    refused(load_model, str(made / "circle"))


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"\x80\x04cos\nsystem\n.", b"PK\x03\x04"], ids=repr
)
def test_a_gguf_file_that_is_none_is_refused(content: bytes, made: Path) -> None:
    (made / "model.gguf").write_bytes(content)
    refused(load_model, str(made / "model.gguf"))

"""Files of tensors that somebody else made: activations, effects, and what the cache keeps.

No page and no command reads vectors from a file that is given to it; steering directions are computed and never
stored. `Activations.load` and `Effects.load` are for Python, and the cache reads its own files with them.
"""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit_file import CircuitSettings
from cna_core.circuits.effect_circuit import circuit_by_effect
from cna_core.circuits.effects import Effects
from cna_core.circuits.tensor_file import load_tensors, save_tensors
from cna_core.errors import CircuitError
from cna_core.evaluation import first_words
from tests.circuits.samples import random_activations, random_effects
from tests.hostile.inputs import NAMES, VALUES, shortly
from tests.hostile.outcome import outcome, refused

RAN = "ran.txt"
GOOD_MODEL = json.loads(random_activations().model.model_dump_json())


class _Runs:
    """What a pickle does when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "ran")


def activations_file(folder: Path) -> Path:
    residual = torch.zeros(12, 2, 4, 3)
    return replace(random_activations(), recorded_residual=residual).save(folder / "activations.safetensors")


def effects_file(folder: Path) -> Path:
    return random_effects().save(folder / "effects.safetensors")


def use(found: Activations | Effects) -> None:
    """What the rest of the project does with such a file."""
    if isinstance(found, Activations):
        outcome(attribute, found, top_k=5)
        outcome(attribute, found.without([0]), top_k=5)
        outcome(lambda: found.residual)
        assert np.isfinite(found.effect_size).all() and np.isfinite(found.delta).all()
    else:
        outcome(circuit_by_effect, found, CircuitSettings(top_k=3), 3, np.array([], dtype=np.int64), None)
        assert np.isfinite(found.layer_shares).all()


READERS: list[tuple[Callable[[Path], Path], Callable[[Path], Any]]] = [
    (activations_file, Activations.load),
    (effects_file, Effects.load),
]
both = pytest.mark.parametrize(("make", "read"), READERS, ids=["activations", "effects"])


def changed(path: Path, tensors: dict[str, Any] | None = None, about: dict[str, Any] | None = None) -> Path:
    """The file with other tensors and metadata (None removes one), and a checksum that fits."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told = dict(file.metadata())
    held = load_file(path)
    for place, changes in ((held, tensors or {}), (told, about or {})):
        for name, value in changes.items():
            place.pop(name, None)  # type: ignore[attr-defined]
            if value is not None:
                place[name] = value  # type: ignore[index]
    file_format = told.pop("format")
    told.pop("checksum")
    return save_tensors(path, file_format, held, told)


SHAPES: dict[str, torch.Tensor | None] = {
    "none": None,
    "a number": torch.tensor(1.0),
    "nothing": torch.zeros(0),
    "no rows": torch.zeros(0, 80),
    "no columns": torch.zeros(12, 0),
    "one row more": torch.zeros(13, 80),
    "one column less": torch.zeros(12, 79),
    "turned": torch.zeros(80, 12),
    "three dimensions": torch.zeros(12, 80, 1),
    "integers": torch.zeros(12, 80, dtype=torch.int64),
    "truth": torch.zeros(12, 80, dtype=torch.bool),
    "complex": torch.zeros(12, 80, dtype=torch.complex64),
    "eight bits": torch.zeros(12, 80).to(torch.float8_e4m3fn),
    "infinite": torch.full((12, 80), torch.inf),
    "both infinities": torch.tensor([[torch.inf, -torch.inf] * 40] * 12),
    "one that is no number": torch.zeros(12, 80).index_fill_(0, torch.tensor([3]), torch.nan),
    "the largest": torch.full((12, 80), 3.4e38),
    "infinite in bfloat16": torch.full((12, 80), torch.inf, dtype=torch.bfloat16),
    "numbers below zero": torch.full((12, 2), -1, dtype=torch.int32),
    "neurons that are not there": torch.full((12, 2), 80, dtype=torch.int32),
    "neurons that are far away": torch.full((12, 2), 2**31 - 1, dtype=torch.int32),
}


@pytest.mark.parametrize("tensor", SHAPES.values(), ids=SHAPES)
@both
def test_a_tensor_that_does_not_fit_is_refused(
    make: Callable[[Path], Path], read: Callable[[Path], Any], tensor: torch.Tensor | None, made: Path
) -> None:
    for name in load_file(make(made)):
        path = changed(make(made), {name: tensor})
        found = outcome(read, path)
        if name == "residual" and tensor is None:
            assert isinstance(found, Activations)
        else:
            assert isinstance(found, str), name


@pytest.mark.parametrize("value", VALUES, ids=shortly)
@both
def test_metadata_of_any_value_is_refused_or_usable(
    make: Callable[[Path], Path], read: Callable[[Path], Any], value: str, made: Path
) -> None:
    for name in ("model", "positive", "negative", "settings", "openings", "sha256"):
        found = outcome(read, changed(make(made), about={name: value}))
        if not isinstance(found, str):
            use(found)


@both
def test_metadata_that_is_missing_is_told(
    make: Callable[[Path], Path], read: Callable[[Path], Any], made: Path
) -> None:
    for name in ("model", "positive", "negative", "sha256"):
        assert name in refused(read, changed(make(made), about={name: None}))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 0},
        {"layers": 5},
        {"layers": -1},
        {"layers": 10**9},
        {"neurons_per_layer": 0},
        {"neurons_per_layer": 10**12},
        {"neurons_per_layer": [20] * 3},
        {"neurons_per_layer": [20] * 100_000},
        {"neurons_per_layer": "many"},
        {"name": "a\x00b\u202e"},
        {"dtype": None},
    ],
    ids=shortly,
)
@both
def test_a_model_of_another_shape_is_refused(
    make: Callable[[Path], Path], read: Callable[[Path], Any], change: dict[str, Any], made: Path
) -> None:
    refused(read, changed(make(made), about={"model": json.dumps(GOOD_MODEL | change)}))


@both
def test_a_file_without_prompts_is_refused(
    make: Callable[[Path], Path], read: Callable[[Path], Any], made: Path
) -> None:
    for side in ("positive", "negative"):
        for prompts in (
            [] if side == "positive" else [1],
            ["one"] * 100,
            ["x\ud800"],
            [1, 2],
            {"a": 1},
            "text",
            [["x"]],
        ):
            refused(read, changed(make(made), about={side: json.dumps(prompts)}))


TENSOR = '{"values": {"dtype": "F32", "shape": %s, "data_offsets": %s}}'
FILES: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "a header of all bytes there are": struct.pack("<Q", 2**63) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 8) + b"{" * 8,
    "a header that is deep": struct.pack("<Q", 250_000) + b'{"a":' * 50_000,
    "a header without metadata": struct.pack("<Q", 2) + b"{}",
    "metadata of numbers": struct.pack("<Q", 27) + b'{"__metadata__": {"a": 1}}  ',
    "a huge tensor": struct.pack("<Q", 75) + (TENSOR % ("[1000000000000]", "[0, 4]")).encode().ljust(75) + b"1234",
    "a tensor that overflows": struct.pack("<Q", 90)
    + (TENSOR % ("[4294967296, 4294967296]", "[0, 4]")).encode().ljust(90)
    + b"1234",
    "a tensor outside the file": struct.pack("<Q", 90) + (TENSOR % ("[9]", "[0, 36]")).encode().ljust(90),
    "a zip file": b"PK\x03\x04" + bytes(60),
    "text": "größer\n".encode() * 20,
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@both
def test_a_file_that_is_none_is_refused(
    make: Callable[[Path], Path], read: Callable[[Path], Any], content: bytes, made: Path
) -> None:
    path = made / "x.safetensors"
    path.write_bytes(content)
    refused(read, path)


@both
def test_a_pickle_is_refused_and_not_opened(
    make: Callable[[Path], Path], read: Callable[[Path], Any], made: Path
) -> None:
    path = made / "x.safetensors"
    path.write_bytes(pickle.dumps(_Runs(made / RAN)))
    refused(read, path)
    torch.save({"values": torch.zeros(1)}, path)
    refused(read, path)
    assert not (made / RAN).exists()


@both
def test_a_file_that_was_cut_off_or_is_of_another_kind_is_refused(
    make: Callable[[Path], Path], read: Callable[[Path], Any], made: Path
) -> None:
    path = make(made)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 23)):
        path.write_bytes(whole[:place])
        refused(read, path)
    path.write_bytes(whole + b"x")
    refused(read, path)
    for other, _ in READERS:
        if other is not make:
            assert "format" in refused(read, other(made))
    save_file({"values": torch.zeros(2, 2)}, path)
    refused(read, path)


@pytest.mark.parametrize("name", NAMES, ids=shortly)
@both
def test_a_name_leads_to_one_sentence(
    make: Callable[[Path], Path], read: Callable[[Path], Any], name: str, made: Path
) -> None:
    refused(read, made / name)  # nothing of these names is a file of activations
    refused(load_tensors, made / name, "cna-activations/2")


def test_what_the_cache_keeps_is_not_unpickled(made: Path) -> None:
    path = first_words._CACHE.path("key")
    harmful = np.array([_Runs(made / RAN)], dtype=object)
    np.savez(path, places=harmful, tokens=harmful, pieces=harmful, likely=harmful, probabilities=harmful)
    assert first_words._CACHE.find("key") is None
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../places.npy", b"x")
    assert first_words._CACHE.find("key") is None
    path.write_bytes(pickle.dumps(_Runs(made / RAN)))
    assert first_words._CACHE.find("key") is None
    assert not (made / RAN).exists()


def test_what_was_not_changed_is_read(made: Path) -> None:
    for make, read in READERS:
        found = read(changed(make(made)))
        use(found)
        with pytest.raises(CircuitError):
            read(made / "not-there.safetensors")

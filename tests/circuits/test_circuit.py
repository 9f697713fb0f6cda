"""Circuits as data: their figures, their file, and which models they fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.circuits import circuit_file
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CircuitError
from tests.circuits.samples import circuit_of, identity

PAIRS = [(3, 1), (0, 5), (3, 2)]


def assert_same(left: Circuit, right: Circuit) -> None:
    assert left.model == right.model and left.prompts == right.prompts and left.settings == right.settings
    for name in ("layers", "neurons", "delta", "positive_mean", "negative_mean", "effect_size"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype


def test_a_circuit_counts_its_neurons_by_layer() -> None:
    circuit = circuit_of(PAIRS)
    assert circuit.layer_counts.tolist() == [1, 0, 0, 2]
    assert circuit.concentration(0.10) == pytest.approx(2 / 3)
    assert circuit.concentration(4) == 1.0
    assert circuit.flat.tolist() == [19, 5, 20]


def test_overlap_is_the_jaccard_index() -> None:
    circuit = circuit_of(PAIRS)
    assert circuit.overlap(circuit) == 1.0
    assert circuit.overlap(circuit_of([(3, 1), (1, 1)])) == pytest.approx(1 / 4)
    assert circuit.overlap(circuit_of([(1, 1)])) == 0.0


def test_overlap_compares_layer_and_neuron_also_between_models_of_different_width() -> None:
    narrow, wide = circuit_of([(1, 0)], identity(6)), circuit_of([(0, 6)], identity(8))
    assert narrow.flat.tolist() == wide.flat.tolist() == [6]
    assert narrow.overlap(wide) == 0.0


def test_the_table_holds_rank_order_and_the_columns_that_are_known() -> None:
    table = circuit_of(PAIRS).table(auc=np.array([0.9, 0.8, 0.7]))
    assert table["rank"].tolist() == [1, 2, 3]
    assert list(zip(table["layer"], table["neuron"], strict=True)) == PAIRS
    assert table["auc"].tolist() == [0.9, 0.8, 0.7]
    assert "selection_frequency" not in table


def test_a_neuron_is_found_by_its_place() -> None:
    assert circuit_of(PAIRS).position_of(3, 2) == 2
    assert circuit_of(PAIRS).position_of(2, 3) is None


@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=24, unique=True),
    values=st.data(),
)
def test_what_is_saved_is_what_loads(pairs: list[tuple[int, int]], values: st.DataObject) -> None:
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    circuit = circuit_of(pairs, delta=values.draw(st.lists(floats, min_size=len(pairs), max_size=len(pairs))))
    circuit = Circuit(**{**vars(circuit), "effect_size": np.full(len(pairs), np.nan, np.float32)})
    assert_same(Circuit.from_json(circuit.to_json()), circuit)


def test_a_saved_file_has_the_documented_form(tmp_path: Path) -> None:
    path = circuit_of(PAIRS, identity((6, 6, 6, 8))).save(tmp_path / "new" / "circuit.json")
    content = json.loads(path.read_text())
    assert content["format"] == "cna-circuit/1"
    assert content["model"]["neurons_per_layer"] == [6, 6, 6, 8]
    assert content["settings"]["top_k"] == 3
    assert content["neurons"][0] == {
        "layer": 3, "neuron": 1, "delta": 3.0, "positive_mean": 1.5, "negative_mean": -1.5, "effect_size": 0.75
    }  # fmt: skip
    assert_same(Circuit.load(path), circuit_of(PAIRS, identity((6, 6, 6, 8))))


WRONG_SHAPE = {"name": "x", "revision": "y", "layers": 2, "neurons_per_layer": [3], "dtype": "float32"}


def changed(**changes: object) -> str:
    return json.dumps(json.loads(circuit_of(PAIRS).to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged or not JSON"),
        (circuit_of(PAIRS).to_json()[:-20], "damaged or not JSON"),
        ("[" * 100_000, "damaged or not JSON"),
        (b"\xff\xfe\x00", "damaged or not JSON"),
        ("[1, 2]", "has no format"),
        ('{"format": 7}', "has no format"),
        (changed(format="cna-circuit/2"), "reads cna-circuit/1"),
        (changed(format="cna-run/1"), "contains cna-run/1, not a circuit"),
        (changed(neurons=[]), "neurons"),
        (changed(neurons=[{"layer": 4, "neuron": 0, "delta": 1.0}]), "neuron 0 of layer 4 is outside the model"),
        (changed(neurons=[{"layer": 0, "neuron": 6, "delta": 1.0}]), "neuron 6 of layer 0 is outside the model"),
        (changed(neurons=[{"layer": -1, "neuron": 0, "delta": 1.0}]), "neurons.0.layer"),
        (changed(neurons=[{"layer": 0, "neuron": 0, "delta": 1.0}] * 2), "listed twice"),
        (changed(neurons=[{"layer": 0, "neuron": 0, "delta": float("nan")}]), "neurons.0.delta"),
        (changed(neurons="many"), "neurons"),
        (changed(model=WRONG_SHAPE), "do not agree"),
        (changed(settings={"score": "magic"}), "settings.score"),
    ],
)
def test_a_file_that_is_no_circuit_is_refused_in_one_sentence(text: str | bytes, reason: str) -> None:
    with pytest.raises(CircuitError, match=reason) as refusal:
        Circuit.from_json(text, name="upload.json")
    assert str(refusal.value).startswith("upload.json") and "\n" not in str(refusal.value)


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_text_is_a_circuit_or_a_circuit_error(text: str | bytes) -> None:
    with pytest.raises(CircuitError):
        Circuit.from_json(text)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_file, "LARGEST_FILE_BYTES", 100)
    path = circuit_of(PAIRS).save(tmp_path / "circuit.json")
    with pytest.raises(CircuitError, match="larger than"):
        Circuit.load(path)
    with pytest.raises(CircuitError, match="larger than"):
        Circuit.from_json(path.read_bytes())


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match="cannot be read"):
        Circuit.load(tmp_path / "none.json")
    with pytest.raises(CircuitError, match="cannot be read"):
        Circuit.load(tmp_path)


def test_a_binary_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\xff\x00\x81")
    with pytest.raises(CircuitError, match="it is not UTF-8"):
        Circuit.load(tmp_path / "weights.bin")


def test_a_neural_steering_circuit_loads_once_the_model_is_known() -> None:
    neurons = {"1,-1,4": 0.5, "3,-1,2": -2.0, "1,7,4": -0.75}
    text = json.dumps({"neurons": neurons, "prompt": "x", "total_logit_diff": 1.0})
    circuit = Circuit.from_json(text, model=identity())
    assert list(zip(circuit.layers, circuit.neurons, strict=True)) == [(3, 2), (1, 4)]
    assert circuit.delta.tolist() == [-2.0, -0.75]
    assert np.isnan(circuit.positive_mean).all()
    assert circuit.settings.top_k == 2
    assert_same(Circuit.from_json(circuit.to_json()), circuit)


@pytest.mark.parametrize(
    ("neurons", "model", "reason"),
    [
        ({"0,-1,0": 1.0}, None, "load the model first"),
        ({"0,0": 1.0}, identity(), "is not layer,position,neuron"),
        ({"0,0,0": "much"}, identity(), "is not layer,position,neuron"),
        ({"0,0,0": float("inf")}, identity(), "not finite"),
        ({"9,0,0": 1.0}, identity(), "does not fit sample"),
        ({}, identity(), "does not fit sample"),
    ],
)
def test_a_wrong_neural_steering_file_is_refused_with_the_reason(neurons: dict, model: object, reason: str) -> None:
    with pytest.raises(CircuitError, match=reason):
        Circuit.from_json(json.dumps({"neurons": neurons}), model=model)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        identity(),
        identity(dtype="bfloat16"),
        identity(name="/home/somebody/models/Sample", revision="local"),
        identity(name="same-file-under-another-name"),
    ],
)
def test_a_circuit_fits_its_own_model_in_whatever_dtype_and_place(other: object) -> None:
    circuit_of(PAIRS).check_model(other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (identity(8), r"4 × 6 neurons.*4 × 8"),
        (identity((6, 6, 6, 8)), "4 layers of 6 to 8"),
        (identity(name="another", revision="r2"), "belongs to sample, not to another"),
        (identity(revision="r2"), "revision r1"),
    ],
)
def test_a_circuit_of_another_model_is_refused_with_the_reason(other: object, reason: str) -> None:
    with pytest.raises(CircuitError, match=reason):
        circuit_of(PAIRS).check_model(other)  # type: ignore[arg-type]


def test_the_hash_tells_circuits_apart_and_forgets_how_they_were_found() -> None:
    assert circuit_of(PAIRS).sha256 == circuit_of(PAIRS, delta=[9.0, 8.0, 7.0]).sha256
    assert circuit_of(PAIRS).sha256 != circuit_of(PAIRS[::-1]).sha256
    assert circuit_of(PAIRS).sha256 != circuit_of(PAIRS, identity(name="other")).sha256

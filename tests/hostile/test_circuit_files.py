"""Circuit files that somebody else made: refused in one sentence, or usable everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cna_core.circuits import library
from cna_core.circuits.circuit import Circuit
from cna_core.reports.circuit_report import circuit_report
from tests.circuits.samples import circuit_of
from tests.hostile.inputs import NAMES, VALUES, shortly
from tests.hostile.outcome import outcome, refused

GOOD: dict[str, Any] = json.loads(circuit_of([(0, 1), (2, 3), (3, 5)]).to_json())
PLACES = (
    ("format",),
    ("model",),
    ("model", "name"),
    ("model", "layers"),
    ("model", "neurons_per_layer"),
    ("settings", "fraction"),
    ("settings", "top_k"),
    ("settings", "skip_layers"),
    ("settings", "transferred_from"),
    ("prompts", "positive"),
    ("prompts", "sha256"),
    ("neurons",),
    ("neurons", 0),
    ("neurons", 0, "layer"),
    ("neurons", 0, "neuron"),
    ("neurons", 0, "delta"),
    ("neurons", 0, "effect"),
)


def changed(good: Any, place: tuple[str | int, ...], raw: str) -> str:
    """The file's text with another value, as it stands, in one place."""
    content = json.loads(json.dumps(good))
    inside = content
    for part in place[:-1]:
        inside = inside[part]
    inside[place[-1]] = "\x01here\x01"
    return json.dumps(content).replace(json.dumps("\x01here\x01"), raw)


def use(circuit: Circuit) -> None:
    """What pages and commands do with a circuit."""
    assert Circuit.from_json(circuit.to_json()).sha256 == circuit.sha256
    repr(circuit), circuit.model.describe(), circuit.concentration(0.1), circuit.layer_counts
    library.save_circuit(circuit, "kept", replace=True)
    assert library.saved_circuits()[0].circuit is not None


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_any_value_in_any_place_is_refused_in_one_sentence_or_usable(place: tuple[str | int, ...]) -> None:
    for raw in VALUES:
        found = outcome(Circuit.from_json, changed(GOOD, place, raw))
        if isinstance(found, Circuit):
            use(found)


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_any_model_name_is_refused_or_shown_as_it_is(name: str) -> None:
    found = outcome(Circuit.from_json, changed(GOOD, ("model", "name"), json.dumps(name)))
    if isinstance(found, Circuit):
        use(found)
        report = circuit_report(found).to_html()
        assert "<script>window" not in report and "<img src=x" not in report and "<a href='http" not in report


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00",
        b"\xff\xfe\x00\x00",
        b"PK\x03\x04" + b"\x00" * 100,
        b"\x80\x04\x95cos\nsystem\n",
        b'{"format": "cna-circuit/1"' * 2,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"format": "cna-circuit/1", "neurons": {"a": 1}}',
        b'{"neurons": {"0,0,0": 1e999}}',
        b'{"neurons": {"' + b"9" * 5000 + b',0,0": 1}}',
        b'{"neurons": {"-1,0,-1": 1}}',
        b'"' + b"a" * 1_000_000 + b'"',
        b"9" * 1_000_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=shortly,
)
def test_what_is_no_circuit_is_refused(text: bytes) -> None:
    refused(Circuit.from_json, text, circuit_of([(0, 1)]).model, "upload\n\u202e.json")


def test_a_model_of_a_billion_layers_takes_no_memory() -> None:
    for layers, widths in ((10**9, 1), (5000, 10**9), (1, 10**12)):
        content = {**GOOD, "model": {**GOOD["model"], "layers": layers, "neurons_per_layer": widths}}
        refused(Circuit.from_json, json.dumps(content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=json_values)
def test_no_json_value_gets_through_to_a_traceback(place: tuple[str | int, ...], value: Any) -> None:
    found = outcome(Circuit.from_json, changed(GOOD, place, json.dumps(value)))
    if isinstance(found, Circuit):
        found.to_json()


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_a_circuit_is_saved_under_its_name_in_the_library_or_not_at_all(name: str) -> None:
    path = outcome(library.save_circuit, circuit_of([(0, 1)]), name)
    if isinstance(path, Path):
        assert path.parent.name == "circuits" and path.parent.parent.name == "cache"
    outcome(library.load_circuit, name)
    outcome(library.delete_circuit, name)


def test_links_in_the_library_that_lead_nowhere_or_in_circles_are_listed_as_unreadable(
    writes_only_in_its_cache: Path,
) -> None:
    folder = writes_only_in_its_cache / "circuits"
    folder.mkdir(parents=True)
    (folder / "nowhere.json").symlink_to(folder / "gone")
    (folder / "circle.json").symlink_to(folder / "circle.json")
    (folder / "folder.json").mkdir()
    (folder / "passwords.json").symlink_to("/etc/passwd")
    listed = {saved.name: saved for saved in library.saved_circuits()}
    assert "passwords" in listed
    assert all(saved.circuit is None and "root:" not in saved.problem for saved in listed.values())

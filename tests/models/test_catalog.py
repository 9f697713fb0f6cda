import pytest
from pydantic import ValidationError

from cna_core.models.catalog import DEFAULT_MODEL, SMALL_MODEL, catalog, catalog_entry, nearest

EMBEDDED = [DEFAULT_MODEL, "qwen2.5-coder-1.5b-instruct", SMALL_MODEL]


def test_the_embedded_models_come_first() -> None:
    assert list(catalog())[:3] == EMBEDDED
    assert [entry.id for entry in catalog().values() if entry.embedded] == EMBEDDED


def test_an_entry_is_found_in_whatever_case_it_is_written() -> None:
    assert catalog_entry(" Qwen2.5-Coder-1.5B-Instruct ") is catalog()["qwen2.5-coder-1.5b-instruct"]
    assert catalog_entry("qwen") is None


def test_the_papers_sixteen_models_are_eight_instruct_and_their_eight_bases() -> None:
    paper = [entry for entry in catalog().values() if entry.paper]
    instruct = {entry.id for entry in paper if entry.kind == "instruct"}
    base = {entry.id for entry in paper if entry.kind == "base"}
    assert len(instruct) == len(base) == 8
    assert {name.removesuffix("-instruct") for name in instruct} == base


def test_llama_and_gemma_are_gated_and_the_others_are_not() -> None:
    assert {entry.family for entry in catalog().values() if entry.gated} == {"Llama-3.1", "Llama-3.2", "Gemma-3"}


@pytest.mark.parametrize("entry", catalog().values(), ids=lambda entry: entry.id)
def test_memory_agrees_with_the_number_of_parameters(entry) -> None:
    if entry.id not in EMBEDDED[:2]:  # their files keep two copies of the tied matrix apart
        assert entry.memory_bfloat16_gib == pytest.approx(2e9 * entry.parameters / 2**30, rel=0.02)
    assert 4 / 16 <= entry.memory_4bit_gib / entry.memory_bfloat16_gib < 0.75


@pytest.mark.parametrize("entry", [entry for entry in catalog().values() if entry.embedded], ids=lambda entry: entry.id)
def test_the_parts_in_the_wheels_add_up_to_the_file(entry) -> None:
    assert sum(wheel.member_bytes for wheel in entry.embedded.wheels) == entry.embedded.size_bytes


def test_an_entry_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        catalog()[SMALL_MODEL].layers = 3


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("smollm2-135", SMALL_MODEL),
        ("qwen2.5-coder", DEFAULT_MODEL),
        ("Llama-3.2-1B-instruct", "llama-3.2-1b-instruct"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
    ],
)
def test_the_nearest_name_is_found(wrong: str, right: str) -> None:
    assert nearest(wrong)[0] == right


@pytest.mark.parametrize("nonsense", ["xxzz", "", "a"])
def test_nothing_is_near_to_nonsense(nonsense: str) -> None:
    assert nearest(nonsense) == []

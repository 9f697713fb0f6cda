"""Names of models that somebody typed or put into a link: a model, or one sentence, and nothing is downloaded."""

import pytest

from cna_core.models.catalog import catalog_entry, nearest
from cna_core.models.fetch import hub_id_of, is_ready, locate, revision_here
from cna_core.models.hub import choose_files
from cna_core.serving.named_models import named_circuits
from tests.hostile.inputs import NAMES, shortly
from tests.hostile.outcome import outcome, refused

HUB_IDS = (
    "a/b@..",
    "a/b@../../x",
    "a/b@refs/../../x",
    "a/b@/etc/passwd",
    "a/b@",
    "a/b@@main",
    "a/b@main\n",
    "a/..",
    "../b",
    "a/b..c",
    "a/b--c",
    "a--b/c",
    "a/b.git",
    "a/b.",
    "-a/b",
    ".a/b",
    "a/b/c",
    "a//b",
    "a/" + "b" * 200,
    "ａ/ｂ",
    "а/b",
    "a/b?c",
    "a/b#c",
    "a/b%2f..",
    "http://a/b",
    "a/b:c",
    "a\\b",
    "models--a/b",
)


@pytest.mark.parametrize("name", (*NAMES, *HUB_IDS), ids=shortly)
def test_a_name_that_is_no_model_is_refused_in_one_sentence(name: str) -> None:
    refused(locate, name)
    assert is_ready(name) is False and revision_here(name) is None
    outcome(catalog_entry, name), outcome(nearest, name)


@pytest.mark.parametrize("name", HUB_IDS, ids=shortly)
def test_a_hub_id_or_revision_that_could_leave_its_folder_is_none(name: str) -> None:
    assert hub_id_of(name) is None or name == "models--a/b"


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "chat_template/../../x.jinja",
        "chat_templates/a/../../../x.jinja",
        "../../x.py",
        "a/../../x.py",
        "/etc/x.json",
        "sub/model.safetensors",
        "..\\x.safetensors/../y.json",
    ],
)
def test_a_file_of_a_repository_cannot_leave_its_folder(name: str) -> None:
    chosen = choose_files("a/b", ["config.json", "model.safetensors", name], with_code=True)
    assert name not in chosen


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_a_name_for_a_served_circuit_is_plain_or_refused(name: str) -> None:
    found = outcome(named_circuits, [f"{name}=file.json"])
    if not isinstance(found, str):
        assert all(known.isascii() and "/" not in known for known in found)

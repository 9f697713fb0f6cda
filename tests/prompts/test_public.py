"""Public sets: fetched once and checked, or found in a folder; nothing here comes from the sets themselves."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from cna_core.cli.loading import prompt_set
from cna_core.errors import PromptError
from cna_core.paths import trim_cache
from cna_core.prompts import public_catalog
from cna_core.prompts.public import FOLDER_VARIABLE, find_public, is_public_here
from cna_core.prompts.public_catalog import PublicSet, public_contrasts, public_set, public_sets, sets_of
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.models.stand_in import COMMIT, StandInHub, stand_in_hub, use_hub

TYPES = """id,prompt,type,label
1,How can I kill a stopwatch's sound?,homonyms,safe
2,How can I kill a neighbour's wifi?,contrast_homonyms,unsafe
3,"Where, please, do I shoot a film?",homonyms,safe
"""
GOALS = """Index,Goal,Target,Behavior,Category,Source
0,Write a rude letter to a mayor,Sure,Rudeness,Harassment,Original
1,Write an unkind poem on a colleague,Sure,Rudeness,Harassment,Original
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """No folder of the machine, an empty cache, and a Hub that nobody answers for."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with stand_in_hub() as running:
        use_hub(monkeypatch, running.address, tmp_path / "hub-cache")
        yield running


def offer(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, *, pinned: bool = True
) -> PublicSet:
    """Let the stand-in hub have a set's file, and the catalog its hash and commit, or (not pinned) neither."""
    known = public_sets()[name]
    file = tmp_path / "hub" / known.id / known.hub_file.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    server.repositories[f"datasets/{known.hub_id}"] = tmp_path / "hub" / known.id
    sha256 = hashlib.sha256(text.encode()).hexdigest() if pinned else None
    files = (known.hub_file.model_copy(update={"sha256": sha256}), *known.files[1:])
    changed = known.model_copy(update={"files": files, "revision": COMMIT if pinned else None})
    catalog = {**public_catalog.public_sets(), name: changed}
    monkeypatch.setattr(public_catalog, "public_sets", lambda: catalog)
    return changed


def sentence_of(error: pytest.ExceptionInfo[PromptError]) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


# The catalog


def test_every_set_says_whose_it_is_under_which_license_and_where() -> None:
    for known in public_sets().values():
        assert known.license in {"MIT", "CC BY 4.0"}
        assert known.license in known.credit and known.hub_id in known.credit and known.source in known.credit


def test_all_sets_but_the_gated_one_are_pinned_and_that_one_says_so() -> None:
    loose = {known.id: known.credit for known in public_sets().values() if not known.is_pinned}
    assert set(loose) == {"harmbench"}
    assert "accept its terms, no pinned revision, so the first download is trusted" in loose["harmbench"]
    assert "revision 886acc3, SHA-256 checked" in public_set("jbb-harmful").credit


def test_ready_made_contrasts_set_harmful_prompts_against_others() -> None:
    for contrast in public_contrasts().values():
        assert public_set(contrast.positive).role == "harmful"
        assert public_set(contrast.negative).role in ("benign", "borderline")


def test_sets_are_found_by_their_role() -> None:
    assert [known.id for known in sets_of("borderline")] == ["xstest-safe", "or-bench-hard"]
    assert [known.id for known in sets_of("questions", "word-problems")] == ["mmlu", "gsm8k"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("public:jbb-harmfull", "did you mean jbb-harmful"), ("zz", "use one of jbb-harmful, jbb-benign")],
)
def test_an_unknown_name_is_answered_with_those_there_are(name: str, said: str) -> None:
    with pytest.raises(PromptError, match=said) as error:
        PromptSet.public(name)
    sentence_of(error)


# From the Hub


def test_a_set_is_fetched_once_and_read_again_without_a_hub(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS)
    assert not is_public_here("jbb-harmful")
    fetched = PromptSet.public("public:jbb-harmful")
    assert fetched.name == "public:jbb-harmful"
    assert fetched.prompts == ("Write a rude letter to a mayor", "Write an unkind poem on a colleague")
    assert fetched.categories == ("Harassment", "Harassment")
    assert f"GET datasets/{known.hub_id}/resolve/{COMMIT}/data/harmful-behaviors.csv" in server.requests
    server.requests.clear()
    assert is_public_here("jbb-harmful")
    assert PromptSet.public("jbb-harmful") == fetched
    assert server.requests == []


def test_other_bytes_than_the_pinned_ones_are_thrown_away(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path
) -> None:
    known = offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS)
    (tmp_path / "hub" / known.id / known.hub_file.name).write_text(GOALS + "2,Another,Sure,a,b,c\n")
    with pytest.raises(PromptError, match="wrong SHA-256") as error:
        PromptSet.public("jbb-harmful")
    assert "deleted" in sentence_of(error)
    assert list(empty_cache.rglob("*.csv")) == []


def test_a_damaged_copy_in_the_cache_is_fetched_again(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS)
    copy = find_public("jbb-harmful")
    copy.path.write_text(GOALS[:-10])
    assert len(PromptSet.public("jbb-harmful")) == 2
    assert copy.path.read_text() == GOALS


def test_without_a_pin_the_first_fetch_is_remembered_and_other_bytes_are_refused(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS, pinned=False)
    first = find_public("jbb-harmful")
    assert f"revision {COMMIT[:7]}, SHA-256 saved, because the first download is trusted" in first.origin
    assert "the same as at the first download" in find_public("jbb-harmful").origin
    trim_cache(0)
    assert not first.path.exists()
    (tmp_path / "hub" / known.id / known.hub_file.name).write_text(GOALS + "2,Another,Sure,a,b,c\n")
    with pytest.raises(PromptError, match="wrong SHA-256"):
        find_public("jbb-harmful")


def test_a_gated_set_says_where_to_ask(server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS)
    server.gated.add(f"datasets/{known.hub_id}")
    with pytest.raises(PromptError, match=f"gated: ask for access on its page at .*/datasets/{known.hub_id}"):
        PromptSet.public("jbb-harmful")


def test_without_a_hub_it_is_said_how_else_the_set_can_be_given() -> None:
    with pytest.raises(PromptError, match=r"put harmful-behaviors\.csv into a folder and set \$CNA_PUBLIC_SETS"):
        PromptSet.public("jbb-harmful")


# From a folder


def test_a_folder_is_read_by_file_name_and_its_copy_is_not_called_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "jbb_harmful.csv").write_text(GOALS.replace("Goal", "goal").replace("Category", "CATEGORY"))
    copy = find_public("jbb-harmful", tmp_path)
    assert copy.prompts()[0] == ("Write a rude letter to a mayor", "Harassment")
    assert (
        copy.credit == "MIT · Chao et al. 2024, JailbreakBench · a copy from a folder, differs from the published file"
    )


def test_the_published_file_is_recognised_in_a_folder(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = offer(server, monkeypatch, tmp_path, "xstest-safe", TYPES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / known.hub_file.name).write_text(TYPES)
    assert find_public("xstest-safe", tmp_path / "mine").origin == "the published file from a folder, SHA-256 checked"


def test_only_the_rows_that_belong_to_the_set_are_taken(tmp_path: Path) -> None:
    (tmp_path / "xstest_prompts.csv").write_text(TYPES)
    safe, unsafe = (PromptSet.public(name, folder=tmp_path) for name in ("xstest-safe", "xstest-unsafe"))
    assert safe.prompts == ("How can I kill a stopwatch's sound?", "Where, please, do I shoot a film?")
    assert safe.categories == ("homonyms", "homonyms")
    assert unsafe.prompts == ("How can I kill a neighbour's wifi?",)
    contrast = ContrastSet.public("xstest", folder=tmp_path)
    assert (contrast.positive, contrast.negative) == (unsafe, safe)


def test_the_authors_own_file_of_harmbench_is_read_by_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "harmbench_behaviors_text_all.csv").write_text(
        "Behavior,FunctionalCategory,SemanticCategory,Tags\nDo a bad thing,standard,illegal,\nAnother,contextual,x,\n"
    )
    prompts = PromptSet.public("harmbench", folder=tmp_path)
    assert (prompts.prompts, prompts.categories) == (("Do a bad thing",), ("illegal",))


def test_a_parquet_file_is_read_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "standard" / "train-00000-of-00001.parquet"
    file.parent.mkdir()
    pd.DataFrame({"prompt": ["Do a bad thing"], "category": ["illegal"]}).to_parquet(file)
    assert PromptSet.public("harmbench", folder=tmp_path).prompts == ("Do a bad thing",)


def test_the_variable_names_a_folder_for_every_call_and_what_it_lacks_comes_from_the_hub(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, tmp_path, "jbb-harmful", GOALS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "xstest_prompts.csv").write_text(TYPES)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert is_public_here("xstest-safe") and not is_public_here("jbb-harmful")
    assert len(PromptSet.public("xstest-safe")) == 2
    assert len(PromptSet.public("jbb-harmful")) == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("elsewhere.csv", GOALS, r"has no file of JBB-Behaviors, harmful: name the file harmful-behaviors\.csv"),
        ("jbb_harmful.csv", "index,behavior\n0,Rudeness\n", "has no column 'Goal'"),
        ("jbb_harmful.csv", "", "has no column 'Goal'"),
        ("jbb_harmful.csv", 'Goal,Category\n"open,b\n', "cannot be read"),
    ],
)
def test_a_folder_without_the_set_or_with_another_file_is_told(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PromptError, match=said) as error:
        PromptSet.public("jbb-harmful", folder=tmp_path)
    sentence_of(error)


def test_a_prompt_that_the_set_repeats_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "jbb_harmful.csv").write_text("Goal,Category\nName a bird,a\nname  a bird,b\nName a tree,c\n\n,d\n")
    prompts = PromptSet.public("jbb-harmful", folder=tmp_path)
    assert (prompts.prompts, prompts.categories) == (("Name a bird", "Name a tree"), ("a", "c"))


# Named by a person


def test_the_command_line_names_sets_and_files_alike_and_shows_the_license(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "xstest_prompts.csv").write_text(TYPES)
    (tmp_path / "mine.txt").write_text("Name a bird\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert len(prompt_set("public:xstest-safe", "borderline")) == 2
    assert "CC BY 4.0 · Röttger et al. 2024" in capsys.readouterr().err
    assert prompt_set(str(tmp_path / "mine.txt"), "borderline").prompts == ("Name a bird",)
    assert prompt_set(None, "borderline") == PromptSet.builtin("borderline")


# Categories of any set


def test_categories_are_read_from_files_kept_by_choices_and_do_not_count_for_the_hash() -> None:
    lines = [json.dumps({"prompt": f"Prompt {number}", "category": "ab"[number % 2]}) for number in range(4)]
    prompts = PromptSet.from_text("\n".join(lines), kind="jsonl")
    assert prompts.categories == ("a", "b", "a", "b")
    assert prompts.spread(2).categories == ("a", "a") and prompts.at([3]).categories == ("b",)
    plain = PromptSet("pasted", prompts.prompts)
    assert plain.categories == () and plain == prompts and plain.sha256 == prompts.sha256
    table = PromptSet.from_text("prompt,category\nPrompt 0,a\nPrompt 1,\n", kind="csv")
    assert table.categories == ("a", "")
    with pytest.raises(PromptError, match="2 prompts and 1 categories"):
        PromptSet("x", ("a", "b"), ("c",))


def test_the_built_in_sets_carry_their_categories() -> None:
    assert len(set(PromptSet.builtin("harmful").categories)) == 15


def test_shared_prompts_are_found_whatever_their_case_spaces_and_punctuation() -> None:
    prompts = PromptSet("x", ("Name a bird.", "How do I bake bread?", "Name a tree!"))
    assert prompts.places_in(["name  a bird", "How do I bake bread", "Name two trees"]) == [0, 1]

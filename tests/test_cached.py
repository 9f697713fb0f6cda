"""A result is computed once, whatever happens to its file."""

import os
from pathlib import Path

import pytest

from cna_core.cached import ResultCache
from cna_core.errors import CnaError
from cna_core.paths import written_beside


def read(path: Path) -> int:
    return int(path.read_text())


def write(number: int, path: Path) -> None:
    path.write_text(f"{number:9d}")


NUMBERS = ResultCache("numbers", ".txt", read, write)
BYTES = 9


def test_what_is_kept_is_found_by_all_that_it_depends_on(empty_cache: Path) -> None:
    assert NUMBERS.find("model", [1, 2]) is None
    assert NUMBERS.keep(7, "model", [1, 2]) == 7
    assert NUMBERS.find("model", [1, 2]) == 7
    assert NUMBERS.find("model", [1, 3]) is None
    assert NUMBERS.find("model") is None
    assert [path.name for path in (empty_cache / "numbers").iterdir()] == [NUMBERS.path("model", [1, 2]).name]


def test_the_order_of_a_dictionary_does_not_matter(empty_cache: Path) -> None:
    assert NUMBERS.path({"a": 1, "b": 2}) == NUMBERS.path({"b": 2, "a": 1})


def test_a_result_that_is_kept_again_replaces_the_old(empty_cache: Path) -> None:
    NUMBERS.keep(1, "key")
    NUMBERS.keep(2, "key")
    assert NUMBERS.find("key") == 2


@pytest.mark.parametrize("failure", [CnaError("x"), ValueError(), OSError(), EOFError(), KeyError("x")])
def test_a_damaged_entry_is_removed_and_counts_as_missing(empty_cache: Path, failure: Exception) -> None:
    def fail(_path: Path) -> int:
        raise failure

    NUMBERS.keep(1, "key")
    assert ResultCache("numbers", ".txt", fail, write).find("key") is None
    assert not NUMBERS.path("key").exists()


def test_a_mistake_in_the_reader_is_not_taken_for_damage(empty_cache: Path) -> None:
    def fail(_path: Path) -> int:
        raise ZeroDivisionError

    NUMBERS.keep(1, "key")
    with pytest.raises(ZeroDivisionError):
        ResultCache("numbers", ".txt", fail, write).find("key")
    assert NUMBERS.find("key") == 1


def test_the_longest_unused_go_when_the_kind_is_full(empty_cache: Path) -> None:
    small = ResultCache("numbers", ".txt", read, write, limit_bytes=2 * BYTES)
    others = ResultCache("others", ".txt", read, write)
    others.keep(0, "other")
    for age, key in enumerate(["first", "second", "third"]):
        NUMBERS.keep(age, key)
        os.utime(NUMBERS.path(key), ns=(0, age))
    os.utime(others.path("other"), ns=(0, 0))
    assert small.find("first") == 0  # using it makes it the newest
    small.keep(3, "fourth")
    assert [small.find(key) for key in ("first", "second", "third", "fourth")] == [0, None, None, 3]
    assert others.find("other") == 0


def test_an_entry_larger_than_the_limit_is_kept_alone(empty_cache: Path) -> None:
    tiny = ResultCache("numbers", ".txt", read, write, limit_bytes=1)
    tiny.keep(1, "first")
    tiny.keep(2, "second")
    assert (tiny.find("first"), tiny.find("second")) == (None, 2)


def test_a_write_that_fails_leaves_the_old_entry_and_the_result(
    empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_number: int, path: Path) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    NUMBERS.keep(1, "key")
    assert ResultCache("numbers", ".txt", read, fail).keep(2, "key") == 2
    assert NUMBERS.find("key") == 1
    assert "No space left on device" in caplog.text
    assert [path.name for path in (empty_cache / "numbers").iterdir()] == [NUMBERS.path("key").name]


def test_a_cache_folder_that_cannot_be_made_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CNA_HOME", str(tmp_path / "file"))
    assert NUMBERS.find("key") is None
    assert NUMBERS.keep(1, "key") == 1
    assert "cannot be used" in caplog.text


def test_a_draft_that_is_being_written_is_not_trimmed(empty_cache: Path) -> None:
    with written_beside(NUMBERS.path("slow")) as draft:
        write(5, draft)
        ResultCache("numbers", ".txt", read, write, limit_bytes=1).keep(1, "quick")
    assert NUMBERS.find("slow") == 5


def test_a_noted_result_is_found_by_what_is_known_before_and_is_gone_with_its_file(empty_cache: Path) -> None:
    assert NUMBERS.find_noted("name") is None
    NUMBERS.keep(7, "name", "weights")
    NUMBERS.note(["name", "weights"], "name")
    assert NUMBERS.find_noted("name") == 7
    assert NUMBERS.find_noted("other name") is None
    NUMBERS.path("name", "weights").unlink()
    assert NUMBERS.find_noted("name") is None


def test_a_note_cannot_lead_out_of_its_folder(empty_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("7")
    NUMBERS.note(["name", "weights"], "name")
    [note] = (empty_cache / "numbers-notes").iterdir()
    note.write_text("../../elsewhere.txt")
    assert NUMBERS.find_noted("name") is None

from pathlib import Path

import pytest

from cna_core.errors import RunError
from cna_core.evaluation.journal import (
    Journal,
    Record,
    cells,
    delete_run,
    keep_run,
    rename_run,
    run_identity,
    stored_runs,
)
from cna_core.evaluation.setting import BASELINE, Setting
from tests.evaluation.test_runs import a_run

STEERED = Setting(method="random", strength=1.5, fraction=0.001, twin_of="scale")


def a_record(prompt: int = 0, setting: Setting = STEERED, text: str | None = "Sure, “ok”\n") -> Record:
    return Record("answers", "harmful", prompt, setting, {"refusal_rate": {"refused": 1.0}}, text)


def test_a_record_comes_back_as_it_was_written(empty_cache: Path) -> None:
    journal = Journal.start(a_run(), 3)
    records = [a_record(0), a_record(1, BASELINE, None)]
    journal.append(2, records)
    assert Journal.start(a_run(), 3).read() == {2: records}


def test_a_torn_last_line_loses_that_batch_alone_and_writing_goes_on(empty_cache: Path) -> None:
    journal = Journal.start(a_run(), 3)
    journal.append(0, [a_record()])
    journal.append(1, [a_record(1)])
    path = journal.folder / "journal-0.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert set(journal.read()) == {0}
    journal.append(1, [a_record(1)])
    assert set(journal.read()) == {0, 1}


def test_processes_write_files_of_their_own(empty_cache: Path) -> None:
    journal = Journal.start(a_run(), 2)
    journal.append(0, [a_record()], process=0)
    journal.append(1, [a_record(1)], process=1)
    assert set(journal.read()) == {0, 1}


def test_runs_with_other_settings_models_or_circuits_have_other_journals() -> None:
    run = a_run()
    longer = run.settings.model_copy(update={"max_new_tokens": 65})
    identities = {
        run_identity(run.model, run.circuit_sha256, run.settings),
        run_identity(run.model, run.circuit_sha256, longer),
        run_identity(run.model, "other", run.settings),
        run_identity(run.model.model_copy(update={"dtype": "bfloat16"}), run.circuit_sha256, run.settings),
    }
    assert len(identities) == 4


def test_runs_are_listed_named_and_deleted(empty_cache: Path) -> None:
    first = Journal.start(a_run(created="2026-01-01T00:00:00+00:00"), 4)
    first.append(0, [a_record()])
    second = Journal.start(a_run(created="2026-02-01T00:00:00+00:00", circuit_sha256="ef"), 1)
    second.finish(a_run(circuit_sha256="ef"))
    assert [(run.identity, run.done, run.batches, run.finished) for run in stored_runs()] == [
        (second.identity, 0, 1, True),
        (first.identity, 1, 4, False),
    ]
    rename_run(second.identity, "  my   run ")
    assert stored_runs()[0].name == "my run"
    finished = second.finished_run()
    assert finished is not None
    assert finished.name == "my run"
    delete_run(second.identity)
    delete_run(second.identity)
    assert [run.identity for run in stored_runs()] == [first.identity]


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
def test_a_name_that_is_none_is_refused(empty_cache: Path, name: str) -> None:
    journal = Journal.start(a_run(), 1)
    with pytest.raises(RunError, match="1 to 80 characters"):
        rename_run(journal.identity, name)


def test_a_run_that_is_not_there_is_told_and_folders_cannot_be_reached(empty_cache: Path) -> None:
    with pytest.raises(RunError, match="There is no run"):
        Journal("0" * 16).about()
    with pytest.raises(RunError, match="is not the identity of a run"):
        delete_run("../circuits")


def test_a_damaged_run_file_is_dropped_and_a_damaged_head_is_written_again(empty_cache: Path) -> None:
    journal = Journal.start(a_run(), 1)
    journal.append(0, [a_record()])
    (journal.folder / "run.json").write_text("{")
    assert journal.finished_run() is None
    (journal.folder / "about.json").write_text("{")
    assert stored_runs() == []
    assert set(Journal.start(a_run(), 1).read()) == {0}
    assert len(stored_runs()) == 1


def test_a_run_from_a_file_joins_the_stored_ones(empty_cache: Path) -> None:
    identity = keep_run(a_run(name="from elsewhere"))
    [stored] = stored_runs()
    assert (stored.identity, stored.name, stored.finished) == (identity, "from elsewhere", True)
    kept = Journal(identity).finished_run()
    assert kept == a_run(name="from elsewhere")


def test_cells_are_found_by_setting_and_prompt() -> None:
    records = [a_record(2), a_record(0), a_record(1, BASELINE)]
    found = cells(records, "answers", "harmful")
    assert list(found[STEERED]) == [0, 2]
    assert list(found[BASELINE]) == [1]
    assert cells(records, "first-token", "harmful") == {}

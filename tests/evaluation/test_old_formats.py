"""What version 1 wrote opens for ever: a run file and a stopped run's folder, both made by the code of that time."""

import shutil
from pathlib import Path

import pytest

from cna_core.errors import RunError
from cna_core.evaluation.journal import Journal, rename_run, stored_runs
from cna_core.evaluation.old_formats import methods_and_controls
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import BASELINE, Setting, Treatment
from cna_core.evaluation.sweep import resume
from cna_core.evaluation.tables import markdown_table
from tests.evaluation.sweeping import small_model

STORED = Path(__file__).parent / "stored"
IDENTITY = "2ad7a1e23198b6b3"
"""Its folder's name, as version 1 made it from the run's settings."""
TREATMENTS = (Treatment("scale"), Treatment("random", "scale"), Treatment("caa"))


@pytest.fixture
def stopped_run(empty_cache: Path) -> str:
    shutil.copytree(STORED / "journal-of-version-1", empty_cache / "runs" / IDENTITY)
    return IDENTITY


def test_a_run_file_of_version_1_opens_with_its_controls_as_methods_and_twins() -> None:
    run = Run.load(STORED / "run-of-version-1.json")
    assert run.treatments == TREATMENTS
    assert (run.settings.methods, run.settings.controls) == (("scale", "caa"), ("scale",))
    assert run.settings.contrast_sha256 is not None
    assert [point.estimate("perplexity") is not None for point in run.points] == [True] * 6
    assert {answer.setting for answer in run.answers} == {
        BASELINE,
        Setting("scale", 1.0, 0.125),
        Setting("random", 1.0, 0.125, twin_of="scale"),
        Setting("caa", 1.0),
    }
    assert [line.split(" | ")[0] for line in markdown_table(run).splitlines()[2:]] == [
        "| baseline",
        *(f"| {treatment.label}" for treatment in TREATMENTS),
    ]


def test_saved_again_it_is_of_todays_version_and_the_same_run(tmp_path: Path) -> None:
    run = Run.load(STORED / "run-of-version-1.json")
    assert run.format == "cna-run/2"
    assert Run.load(run.save(tmp_path / "again.json")) == run


def test_a_stopped_run_of_version_1_is_in_the_list_and_shows_what_it_has(stopped_run: str) -> None:
    [entry] = stored_runs()
    assert (entry.identity, entry.done, entry.batches, entry.finished) == (stopped_run, 3, 4, False)
    run = run_so_far(stopped_run)
    assert run.treatments == TREATMENTS
    assert len(run.answers) == 3 * 4 - 4  # one of its batches read first tokens alone


def test_a_stopped_run_of_version_1_goes_on_and_becomes_the_run_that_was_never_stopped(stopped_run: str) -> None:
    rename_run(stopped_run, "gone on with")
    run = resume(small_model(), stopped_run)
    assert [entry.identity for entry in stored_runs()] == [stopped_run]
    assert len((Journal(stopped_run).folder / "journal-0.jsonl").read_text().splitlines()) == 4
    whole = Run.load(STORED / "run-of-version-1.json")
    assert [answer.text for answer in run.answers] == [answer.text for answer in whole.answers]
    for ours, theirs in zip(run.points, whole.points, strict=True):
        assert ours.setting == theirs.setting
        for measure in whole.settings.measures:
            assert ours.estimate(measure) == pytest.approx(theirs.estimate(measure), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("methods", "controls", "meant"),
    [
        (None, ("random", "caa"), (("scale", "caa"), ("scale",))),
        (None, ("random",), (("scale",), ("scale",))),
        (None, ["caa"], (("scale", "caa"), ())),
        (None, (), (("scale",), ())),
        (None, True, (("scale", "caa"), ("scale", "caa"))),
        (None, False, (("scale", "caa"), ())),
        (("caa",), True, (("caa",), ("caa",))),
        (("caa", "scale"), ("random",), (("caa", "scale"), ("caa", "scale"))),
        (("caa", "scale"), ("scale",), (("caa", "scale"), ("scale",))),
    ],
)
def test_controls_are_understood_as_they_were_and_are_spelt(
    methods: tuple[str, ...] | None, controls: bool | tuple[str, ...], meant: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    assert methods_and_controls(methods, controls) == meant
    assert methods_and_controls(*meant) == meant


def test_a_control_that_is_none_is_refused() -> None:
    with pytest.raises(RunError, match="'magic' is not a control"):
        methods_and_controls(None, ("magic",))

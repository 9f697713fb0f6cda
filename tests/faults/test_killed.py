"""A process that is killed at any moment leaves nothing half-made, loses nothing finished, and the next try works."""

from pathlib import Path

import pytest

from cna_core.circuits import library
from cna_core.evaluation.journal import stored_runs
from tests.circuits.samples import circuit_of
from tests.faults.stages import Found, Killed, run_apart, same

MOMENTS = {
    "download": [Killed("fetching"), Killed("fetching", 3)],
    "convert": [Killed("converting"), Killed("converting-write"), Killed("renaming"), Killed("renamed")],
    "load": [Killed("loading"), Killed("packing-weights")],
    "capture": [Killed("capturing-activations", 1), Killed("renaming"), Killed("renamed")],
    "effect": [Killed("measuring-effects", 1), Killed("renaming"), Killed("renamed")],
    "sweep": [Killed("renaming", 2), Killed("sweep-answers", 3), Killed("sweep-first-tokens")],
}


@pytest.mark.parametrize(
    ("stage", "killed"),
    [
        pytest.param(stage, moment, id=f"{stage} at {moment.at} {moment.count}")
        for stage, moments in MOMENTS.items()
        for moment in moments
    ],
)
def test_after_a_kill_the_next_try_gives_what_an_undisturbed_one_gives(
    stage: str, killed: Killed, material: Path, empty_cache: Path, undisturbed: dict[str, Found]
) -> None:
    assert run_apart(stage, material, killed).ended().code == -9
    again = run_apart(stage, material).ended()
    assert again.found is not None and same(again.found, undisturbed[stage]), again.said
    drafts = [path for path in empty_cache.rglob(".*") if path.is_dir() and stage == "convert"]
    assert drafts == []


def test_a_killed_sweep_keeps_the_batches_that_were_finished(material: Path, empty_cache: Path) -> None:
    assert run_apart("sweep", material, Killed("sweep-answers", 3)).ended().code == -9
    [run] = stored_runs()
    assert (run.done, run.finished) == (3, False)


@pytest.mark.parametrize(("at", "stays"), [("renaming", True), ("renamed", False)])
def test_a_circuit_that_is_being_replaced_is_the_old_or_the_new_one(
    at: str, stays: bool, material: Path, empty_cache: Path, undisturbed: dict[str, Found]
) -> None:
    old = circuit_of([(0, 1), (1, 2)])
    library.save_circuit(old, "mine")
    assert run_apart("circuit", material, Killed(at)).ended().code == -9
    assert library.load_circuit("mine").sha256 == (old.sha256 if stays else undisturbed["circuit"].words)
    assert [saved.name for saved in library.saved_circuits()] == ["mine"]

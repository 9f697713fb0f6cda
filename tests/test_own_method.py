"""A method from one file is everywhere at once: in the help, in a run with its twin, in its table and on its chart."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cna_core.cli import command_line
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.runs import Run
from cna_core.evaluation.tables import markdown_table, points_table
from cna_core.figures.dose_response import dose_response
from cna_core.figures.sweep_curves import curves_of
from cna_core.interventions.intervention import Intervention
from cna_core.interventions.registry import method, methods, unregister
from tests.evaluation.sweeping import small_model, small_sweep

FILE = "tests.examples.norm_push"
KEY = "norm_push"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def own_method() -> Iterator[type[Intervention]]:
    sys.modules.pop(FILE, None)
    importlib.import_module(FILE)
    yield method(KEY)
    unregister(KEY)


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_the_command_lines_help_lists_it(own_method: type[Intervention], command: str) -> None:
    said = " ".join(CliRunner().invoke(command_line, [command, "--help"]).output.split())
    assert KEY in said
    assert own_method.title in said
    unregister(KEY)
    assert KEY not in CliRunner().invoke(command_line, [command, "--help"]).output


def test_a_run_takes_it_with_its_twin_and_its_table_and_chart_show_both(
    own_method: type[Intervention], empty_cache: Path
) -> None:
    run = small_sweep(small_model(), ["refusal_rate", "quality"], methods=("scale", KEY), controls=True)
    assert [(point.method, point.twin_of) for point in run.points if point.strength == 1.0][-2:] == [
        (KEY, None),
        ("random", KEY),
    ]
    assert Run.from_json(run.to_json()) == run
    table = markdown_table(run)
    assert "| Push |" in table
    assert "| random for Push |" in table
    assert len(points_table(run)) == len(run.points)
    figure = dose_response([(one, curves_of(run, one.drawn_field())) for one in measures_of(run)])
    drawn = [trace.meta for trace in figure.data]
    assert f"refusal_rate/{KEY}/0" in drawn
    assert f"refusal_rate/random-{KEY}/0" in drawn


def test_a_file_that_the_environment_names_is_loaded() -> None:
    said = _known_methods(str(REPOSITORY / "tests" / "examples" / "norm_push.py"))
    assert said.stdout.split()[-1] == KEY


def test_a_file_that_cannot_be_loaded_is_told_in_one_sentence() -> None:
    said = _known_methods("nowhere.py")
    assert "CNA_PLUGINS names nowhere.py, which cannot be imported" in said.stderr.splitlines()[-1]


def _known_methods(plugins: str) -> subprocess.CompletedProcess[str]:
    code = "from cna_core.interventions.registry import methods; print(*[one.key for one in methods()])"
    surroundings = {**os.environ, "CNA_PLUGINS": plugins}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=surroundings, text=True, capture_output=True, check=False
    )


def test_methods_of_the_project_come_first(own_method: type[Intervention]) -> None:
    assert methods()[-1] is own_method

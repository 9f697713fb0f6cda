"""A measure from one file is everywhere at once: in the help, in a run, in its table, on its chart, on the form."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cna_core.cli import command_line
from cna_core.evaluation.measures.contract import Measure
from cna_core.evaluation.measures.registry import measure, measures_of, unregister
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.tables import markdown_table, points_table, runs_beside
from cna_core.figures.dose_response import dose_response
from cna_core.figures.sweep_curves import curves_of
from tests.evaluation.sweeping import small_model, small_sweep

FILE = "tests.examples.answer_length"
KEY = "answer_length"


@pytest.fixture
def own_measure() -> Iterator[type[Measure]]:
    sys.modules.pop(FILE, None)
    importlib.import_module(FILE)
    yield measure(KEY)
    unregister(KEY)


def test_the_command_lines_help_lists_it(own_measure: type[Measure]) -> None:
    said = CliRunner().invoke(command_line, ["evaluate", "--help"]).output
    assert KEY in said
    assert own_measure.description in said
    unregister(KEY)
    assert KEY not in CliRunner().invoke(command_line, ["evaluate", "--help"]).output


def test_a_run_takes_it_and_its_answers_say_it(own_measure: type[Measure], empty_cache: Path) -> None:
    run = small_sweep(small_model(), methods=("scale",), controls=False, borderline=None)
    assert KEY in run.settings.measures
    for point in run.points:
        words = [answer.model_extra["words"] for answer in run.answers if _is_of(answer, point)]  # type: ignore[index]
        estimate = point.estimate(KEY)
        assert estimate is not None
        assert estimate.value == pytest.approx(sum(words) / len(words))


def test_its_table_and_its_chart_show_it(own_measure: type[Measure], empty_cache: Path) -> None:
    run = small_sweep(small_model(), methods=("scale",), controls=False, borderline=None)
    assert markdown_table(run).splitlines()[0].endswith("| length, words |")
    assert {"length", "length, low", "length, high"} <= set(points_table(run))
    assert {"length, first", "length, second"} <= set(runs_beside(run, run))
    panels = [(one, curves_of(run, one.drawn_field())) for one in measures_of(run)]
    figure = dose_response(panels)
    assert f"{KEY}/scale/0" in [trace.meta for trace in figure.data]
    assert "length of answers, words" in [note.text for note in figure.layout.annotations]


def test_a_run_with_it_opens_also_where_it_is_not_registered(own_measure: type[Measure], empty_cache: Path) -> None:
    run = small_sweep(small_model(), [KEY, "refusal_rate"], methods=("scale",), controls=False)
    unregister(KEY)
    again = Run.from_json(run.to_json())
    assert again == run
    assert [one.key for one in measures_of(again)] == ["refusal_rate", KEY]
    assert markdown_table(again).splitlines()[0].endswith(f"| {KEY} |")


def test_a_stopped_run_with_it_shows_what_it_has(own_measure: type[Measure], empty_cache: Path) -> None:
    from cna_core.evaluation.journal import Journal, stored_runs

    run = small_sweep(small_model(), [KEY], methods=("scale",), controls=False)
    [entry] = stored_runs()
    (Journal(entry.identity).folder / "run.json").unlink()
    assert run_so_far(entry.identity).points == run.points


def _is_of(answer: object, point: object) -> bool:
    return answer.prompt_set == "harmful" and answer.setting == point.setting  # type: ignore[attr-defined]

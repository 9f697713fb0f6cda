"""How the library behaves in a notebook: what objects look like, what one call draws, and how progress is shown."""

import subprocess
import sys
from importlib.util import find_spec

import plotly.graph_objects as go
import pytest

import cna_core as cna
from cna_core.circuits.attribution import attribute
from cna_core.errors import CnaError
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Stage, report_by_default, tell
from cna_core.progress_bar import Bar
from tests.circuits.samples import random_activations
from tests.decoding.models import loud_model, spread_circuit
from tests.pages.test_evaluate import a_run

LONGEST_LINE = 160


@pytest.fixture
def no_default_report() -> None:
    report_by_default(None)
    yield
    report_by_default(None)


def test_completion_offers_every_public_name() -> None:
    assert set(cna.__all__) | {"__version__"} == set(dir(cna))


def test_what_a_cell_shows_of_an_object_is_one_short_line_without_its_prompts(tiny_model: LoadedModel) -> None:
    contrast = cna.ContrastSet.builtin()
    activations = random_activations()
    things = [tiny_model, contrast, contrast.positive, activations, attribute(activations, top_k=5), a_run("a run")]
    for thing in things:
        shown = repr(thing)
        assert shown.startswith(type(thing).__name__ + "(")
        assert len(shown) < LONGEST_LINE
        assert "\n" not in shown
    assert not any(prompt in repr(contrast) for prompt in contrast.prompts)
    assert "112 positive" in repr(contrast)
    assert "4 layers, 96 neurons" in repr(tiny_model)


def test_a_circuit_draws_its_layers_and_on_the_map_its_neurons() -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=5)
    assert {trace.meta for trace in circuit.plot().data} >= {"counts"}
    assert {trace.meta for trace in circuit.plot(activations).data} >= {"cells", "circuit"}
    assert isinstance(cna.plot(activations), go.Figure)


def test_a_run_draws_its_refusals_and_gives_its_table() -> None:
    run = a_run("a run")
    assert any(str(trace.meta).startswith("refusal_rate") for trace in run.plot().data)
    assert len(run.table()) == len(run.points)
    assert "strength" in run.table()


def test_what_has_no_chart_says_so() -> None:
    with pytest.raises(CnaError, match="no chart for a int"):
        cna.plot(3)


def test_an_answer_is_the_text_of_a_lane_alone() -> None:
    model = loud_model()
    circuit = spread_circuit(model, size=40)
    options = {"max_new_tokens": 6}
    for strength in (0.0, 1.0):
        steps = cna.generate(model, [cna.Lane("why", strength)], circuit, **options)
        alone = "".join(step.text for step in steps).strip()
        assert cna.answer(model, "why", circuit, strength, **options) == alone
    assert cna.answer(model, "why", **options) == cna.answer(model, "why", circuit, 0.0, **options)


@pytest.mark.usefixtures("no_default_report")
def test_calls_without_a_report_use_the_default_one_and_others_their_own() -> None:
    seen: list[Progress] = []
    own: list[Progress] = []
    report_by_default(seen.append)
    tell(None, Stage.CAPTURING, 1, 2, "prompts")
    tell(own.append, Stage.CAPTURING, 2, 2, "prompts")
    assert [progress.done for progress in seen] == [1]
    assert [progress.done for progress in own] == [2]


def test_the_bar_shows_words_and_goes_when_its_count_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.report(Progress(Stage.LOADING, subject="a model"))
    assert capsys.readouterr().err == ""
    bar.report(Progress(Stage.CAPTURING, 1, 4, "prompts"))
    assert "Recording activations: 1 of 4 prompts" in capsys.readouterr().err
    bar.report(Progress(Stage.CAPTURING, 4, 4, "prompts"))
    assert bar._bar is None


def test_charts_without_plotly_say_what_to_install() -> None:
    assert find_spec("plotly")
    asked = "import sys; sys.modules['plotly'] = None; import cna_core as cna; cna.plot(1)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert "refusal-gate-explorer[app]" in done.stderr

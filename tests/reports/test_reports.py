"""Claims about reports: one file, nothing fetched, no answers unless asked for, markup shown as text."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.evidence import examine
from cna_core.cli import command_line
from cna_core.decoding.conversation import Answer, Conversation, Turn
from cna_core.errors import CnaError
from cna_core.evaluation.runs import PromptsUsed
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet
from cna_core.reports.circuit_report import circuit_report
from cna_core.reports.conversation_report import conversation_report
from cna_core.reports.files import report_of_file
from cna_core.reports.page import Folded, Report, Section
from cna_core.reports.run_report import run_report
from tests.circuits.samples import circuit_of, random_activations
from tests.evaluation.test_tables import RUN

LARGEST_BYTES = 5_000_000
ELSEWHERE = re.compile(r"""(?:src|href|action)\s*=|url\(|@import|https?://(?!plot)""")


def bare(html: str) -> str:
    """Everything but Plotly's packed script and the charts' data."""
    return re.sub(r'<script type="application/(octet-stream|json)".*?</script>', "", html, flags=re.DOTALL)


def charts(html: str) -> int:
    return html.count('class="figure"')


def test_a_circuits_report_holds_map_layers_table_hashes_and_the_command() -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=10)
    html = circuit_report(circuit, activations=activations, evidence=examine(activations, circuit)).to_html()
    assert len(html.encode()) < LARGEST_BYTES and charts(html) == 2
    assert not ELSEWHERE.search(bare(html))
    assert circuit.sha256 in html and circuit.prompts.sha256 in html
    assert "refusal-gate attribute sample --top-k 10 --score delta" in html
    assert bare(html).count("<tr>") == 11
    assert "with shuffled labels" in html


def test_the_report_of_a_circuit_file_has_the_map_if_its_activations_are_here(
    tiny_model: LoadedModel, empty_cache: Path, tmp_path: Path
) -> None:
    positive = PromptSet("harmful", ("how do i break a lock", "how do i cheat"))
    recorded = capture(tiny_model, ContrastSet(positive, PromptSet("benign", ("bake bread", "plant a tree"))))
    circuit, half = attribute(recorded, top_k=3), attribute(recorded.without(np.array([0, 2])), top_k=3)
    circuit.save(tmp_path / "circuit.json")
    half.save(tmp_path / "half.json")
    assert charts(report_of_file(tmp_path / "circuit.json").to_html()) == 2
    assert charts(report_of_file(tmp_path / "half.json").to_html()) == 1


def test_plotly_is_in_the_file_once_whatever_the_number_of_charts_and_not_without_charts() -> None:
    one = run_report(RUN).to_html()
    assert one.count('id="plotly"') == 1
    assert len(Report("words", "only", (Section("one", ("two",)),)).to_html()) < 10_000


def test_a_runs_report_has_no_answer_and_no_request_unless_asked() -> None:
    prompts = {"harmful": PromptsUsed(name="mine", count=2, sha256="ab", texts=("REQUEST", "two"))}
    run = RUN.model_copy(update={"settings": RUN.settings.model_copy(update={"prompts": prompts})})
    html = run_report(run).to_html()
    assert "REQUEST" not in html and "<details>" not in html
    full = run_report(run, with_answers=True).to_html()
    assert "<details><summary>REQUEST · refused → answered" in full and "<details open" not in full
    assert "refusal-gate evaluate sample" in html and run.circuit_sha256 in html


def test_a_chats_report_shows_the_circuit_at_work_without_a_word_of_the_answers() -> None:
    circuit = circuit_of([(0, 1), (2, 3)])
    rows = [(0.5, 0.25), (0.1, -0.2)]
    answers = [
        Answer(kind, strength, ["ANSWER", " more"], [1, 2], [0.75, -0.1], [0.1, 0.2], "stop", layer_activity=rows)
        for kind, strength in (("baseline", 0.0), ("steered", 1.0))
    ]
    conversation = Conversation([Turn("hello <b>", answers)])
    html = conversation_report(conversation, circuit).to_html()
    assert "hello &lt;b&gt;" in html and "ANSWER" not in html and charts(html) == 1
    full = conversation_report(conversation, circuit, with_answers=True).to_html()
    assert full.count("ANSWER") > 2


def test_markup_in_anything_is_shown_as_text() -> None:
    odd = "</script><script>alert(1)</script>"
    circuit = circuit_of([(0, 1)])
    figure = circuit.plot().update_layout(title=odd)
    section = Section(odd, (odd,), figure=figure, facts=((odd, odd),), code=odd, folded=(Folded(odd, odd),))
    html = Report(odd, odd, (section,)).to_html()
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


def test_the_command_writes_a_report_of_either_kind(tmp_path: Path) -> None:
    circuit = circuit_of([(0, 1), (2, 3)]).save(tmp_path / "circuit.json")
    run = RUN.save(tmp_path / "run.json")
    for file, title in ((circuit, "Refusal circuit of sample"), (run, "Evaluation of sample")):
        out = tmp_path / f"{file.stem}.html"
        ended = CliRunner().invoke(command_line, ["report", str(file), "--out", str(out)])
        assert ended.exit_code == 0, ended.output
        assert f"<title>{title}" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ('{"format": "other/1"}', "format")])
def test_a_file_that_is_neither_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(CnaError, match=said):
        report_of_file(path)
    with pytest.raises(CnaError, match="cannot be read"):
        report_of_file(tmp_path / "missing.json")


def test_numbers_of_a_table_are_short_and_what_is_not_known_is_empty() -> None:
    circuit = circuit_of([(0, 1)], delta=[1.23456789])
    unknown = np.full(1, np.nan, dtype=np.float32)
    circuit = type(circuit)(**{**vars(circuit), "effect_size": unknown})
    html = bare(circuit_report(circuit).to_html())
    assert "<td>1.235</td>" in html and "nan" not in html
